"""A graph while it is built: the net, the values that steps may read, and what many steps need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from tests.nets import Net

MOST_CHANNELS, MOST_ELEMENTS = 12, 1500


@dataclass(frozen=True)
class Value:
    """[2, channels, *sizes]; the sizes are those at run time, declared or not."""

    name: str
    channels: int
    sizes: tuple[int, ...]

    @property
    def axes(self) -> int:
        return len(self.sizes)

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.channels, *self.sizes)


@dataclass
class Growth:
    net: Net
    open: str
    pool: list[Value] = field(default_factory=list)

    def at(self, index: int) -> Value:
        return self.pool[-1 - index % len(self.pool)]

    def alike(self, value: Value, index: int) -> Value:
        """A value of the same shape as `value`, which is number 0 itself."""
        found = [v for v in self.pool if v.shape == value.shape and v != value]
        return [value, *reversed(found)][index % (len(found) + 1)]

    def summand(self, value: Value, index: int) -> Value:
        """A value that can be added without changing the shape of `value`, number 0 itself."""
        found = [v for v in self.pool if v.axes == value.axes and v != value]
        found = [
            v for v in found if all(a in (1, b) for a, b in zip(v.shape, value.shape, strict=True))
        ]
        found.sort(key=lambda v: v.shape == value.shape)  # those that broadcast come last
        return [value, *reversed(found)][index % (len(found) + 1)]

    def numbers(self, *shape: int, fan: int = 1) -> str:
        """Random numbers; a layer that reads `fan` of them keeps the size of its input."""
        return self.net.const(self.net.rng.standard_normal(shape) / np.sqrt(fan))

    def simple(self, *shape: int, low: float = -1.0) -> str:
        """Numbers that a rewrite may take for special, none below `low`."""
        choice = [n for n in (-1.0, 0.0, 0.5, 1.0, 2.0, 4.0) if n >= low]
        return self.net.const(self.net.rng.choice(choice, shape))

    def indices(self, *numbers: int) -> str:
        return self.net.const(np.array(numbers, dtype=np.int64))

    def cut(self, name: str, axis: int, first: int, last: int, step: int = 1) -> str:
        ends = (self.indices(n) for n in (first, last, axis, step))
        return self.net.op("Slice", name, *ends)

    def norm(self, value: Value) -> Value:
        rng, c = self.net.rng, value.channels
        gamma = rng.uniform(0.4, 1.2, c) * rng.choice([1, 1, 1, -1, 0], c)
        parts = [gamma, *rng.normal(0, 0.3, (2, c)), rng.uniform(0.5, 1.2, c)]
        name = self.net.op("BatchNormalization", value.name, *map(self.net.const, parts))
        return Value(name, c, value.sizes)

    def total(self, terms: Sequence[tuple[bool, str]], nesting: str) -> str:
        """The sum of (is it subtracted, name); a single Sum subtracts nothing."""
        if len(terms) == 1:
            return terms[0][1]
        if nesting == "Sum":
            return self.net.op("Sum", *(name for _, name in terms))
        cut = {"left": len(terms) - 1, "right": 1}.get(nesting, len(terms) // 2)
        one, two = self.total(terms[:cut], nesting), self.total(terms[cut:], nesting)
        return self.net.op("Sub" if terms[cut][0] else "Add", one, two)


def fits(sizes: Sequence[int], channels: int) -> bool:
    return min(sizes) > 0 and channels * int(np.prod(sizes)) <= MOST_ELEMENTS


def slid(
    sizes: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int] | None = None,
) -> tuple[int, ...]:
    """Sizes of what a sliding window makes."""
    axes = len(sizes)
    spans = [d * (k - 1) + 1 for d, k in zip(dilations or [1] * axes, kernel, strict=True)]
    ends = zip(sizes, pads[:axes], pads[axes:], spans, strides, strict=True)
    return tuple((n + b + e - span) // s + 1 for n, b, e, span, s in ends)
