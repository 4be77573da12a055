"""The scales at which what writes a channel and what reads it are alike.

A channel is written by p = sqrt(sum over i, k of W1[c, i, k]^2 + b1[c]^2), which is its size where
inputs have size 1, and read by q = sqrt(sum over o, k of W2[o, c, k]^2). Divided by s where it is
written, and multiplied by it where it is read, s in proportion to sqrt(p / q), all channels have
one p / q: cross-layer equalisation (Nagel et al. 2019), with norms for ranges. What is left is a
factor that all channels share; it makes the median of the p equal to 1, so numbers stay in the
middle of the range of a type. Of values that are added only the first one counts for that: what is
added is computed from them, so that its size follows theirs. Where p and q depend on other scales,
all are solved in turn until nothing moves, as in the balancing of a matrix (Osborne 1960). Channels
that are all balanced to within a bit stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from flatfold.passes.scaling.channels import FIXED, Labels, components
from flatfold.passes.stencil.kernels import Array
from flatfold.passes.stencil.stencil import Stencil

MOST = 24  # bits by which a channel is scaled
SWEEPS = 24
CLOSE = 0.05  # bits
LEAST = 2  # bits by which some channel has to be off

Exponents = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Layer:
    """Squares of a layer's weights, [groups, outputs, inputs] of each group, over that of its
    largest, `unit`; and the numbers of its scales."""

    squares: Array
    unit: float
    bias: Array
    reads: Labels
    writes: Labels

    def written(self, exponents: Array) -> Array:
        """p of each output."""
        scales = np.exp2(2 * exponents[self.reads]).reshape(len(self.squares), -1, 1)
        sums = _product(self.squares, scales.astype(self.squares.dtype))
        return np.hypot(np.sqrt(sums) * self.unit, self.bias) * np.exp2(-exponents[self.writes])

    def read(self, exponents: Array) -> Array:
        """q of each input."""
        scales = np.exp2(-2 * exponents[self.writes]).reshape(len(self.squares), 1, -1)
        sums = _product(scales.astype(self.squares.dtype), self.squares)
        return np.sqrt(sums) * self.unit * np.exp2(exponents[self.reads])


def _product(a: Array, b: Array) -> Array:
    """The product of two stacks of matrices, in a row.

    A product by BLAS now and then warns of an invalid number that is in none of the arrays; what
    is not finite in the result is left out of a balance anyway.
    """
    with np.errstate(invalid="ignore"):
        return (a @ b).reshape(-1).astype(np.float64)


def layer_of(stencil: Stencil, reads: Labels, writes: Labels) -> Layer:
    """The magnitudes of a stencil."""
    shape, wide = stencil.geometry, np.promote_types(stencil.weight.dtype, np.float32)
    weight = stencil.weight.reshape(shape.groups, shape.outputs // shape.groups, -1, shape.taps)
    unit = float(max(np.max(weight), -np.min(weight))) or 1.0
    parts = (np.square(weight[..., tap] / unit, dtype=wide) for tap in range(shape.taps))
    squares = sum(parts, start=np.zeros(weight.shape[:3], wide))
    bias = np.zeros(shape.outputs) if stencil.bias is None else stencil.bias
    return Layer(squares, unit, bias, reads, writes)


def balance(layers: Sequence[Layer], count: int, fixed: npt.NDArray[np.bool_]) -> Exponents:
    """k of the scale 2^k of each of `count` numbers, 0 of those that are `fixed`.

    A channel that nothing writes, or nothing reads, keeps its scale.
    """
    exponents = np.zeros(count)
    blocks = [block for block in _blocks(layers, count, fixed) if block.writers and block.readers]
    for _ in range(SWEEPS):
        moved = 0.0
        for block in blocks:
            by = block.imbalance(exponents)
            new = np.clip(exponents[block.numbers] + by, -MOST, MOST)
            moved = max(moved, float(np.max(np.abs(new - exponents[block.numbers]))))
            exponents[block.numbers] = new
        if moved < CLOSE:
            break
    rounded = np.rint(exponents).astype(np.int64)
    for block in blocks:
        if np.max(np.abs(rounded[block.numbers])) < LEAST:
            rounded[block.numbers] = 0
    return rounded


@dataclass(frozen=True, eq=False)
class _Block:
    """Numbers that are written together, by the layers that write and read them."""

    numbers: Labels
    writers: Sequence[Layer]
    readers: Sequence[Layer]
    place: Labels  # of each number in `numbers`; the last place is for all others

    def imbalance(self, exponents: Array) -> Array:
        """By how much the exponent of each number is too small; 0 where p or q is 0."""
        p = self._largest([(layer.writes, layer.written(exponents)) for layer in self.writers])
        q = self._largest([(layer.reads, layer.read(exponents)) for layer in self.readers])
        first, by = self.writers[0], np.zeros(len(self.numbers))
        level = self._largest([(first.writes, first.written(exponents))])
        live = (p > 0) & (q > 0) & np.isfinite(p) & np.isfinite(q)
        if live.any():
            apart = np.log2(p[live] / q[live]) / 2
            by[live] = apart - np.median(apart)
        if np.any(live & (level > 0)):
            by[live] += np.median(np.log2(level[live & (level > 0)]))
        return by

    def _largest(self, sizes: Sequence[tuple[Labels, Array]]) -> Array:
        """The largest of what is said of each number, 0 of a number that nothing is said of."""
        largest = np.zeros(len(self.numbers) + 1)
        for numbers, each in sizes:
            np.maximum.at(largest, self.place[numbers], each)
        return largest[:-1]


def _blocks(layers: Sequence[Layer], count: int, fixed: npt.NDArray[np.bool_]) -> list[_Block]:
    """The numbers that some layer writes together, in the order of the layers."""
    together = components(count, [(layer.writes[:-1], layer.writes[1:]) for layer in layers])
    writers: dict[int, list[Layer]] = {}
    readers: dict[int, list[Layer]] = {}
    for layer in layers:
        writers.setdefault(int(together[layer.writes[0]]), []).append(layer)
        for label in np.unique(together[layer.reads]).tolist():
            readers.setdefault(label, []).append(layer)
    blocks = []
    for label, some in writers.items():
        numbers = np.unique(np.concatenate([layer.writes for layer in some]))
        numbers = numbers[~fixed[numbers] & (numbers != FIXED)]
        place = np.full(count, len(numbers))
        place[numbers] = np.arange(len(numbers))
        if len(numbers):
            blocks.append(_Block(numbers, some, readers.get(label, []), place))
    return blocks
