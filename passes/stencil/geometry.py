"""The shape of a stencil: which taps it has and where they look; integers only, no weights.

Output index p of a stencil with stride s, dilation d and `begin` zeros in front reads the inputs

    s * p - begin + d * j,    j = 0 .. kernel - 1

and has floor((size + begin + end - span) / s) + 1 values, span = d * (kernel - 1) + 1. Negative
`begin` or `end` is a crop. With `upsample` u > 1 the input is first spread out, u - 1 zeros between
neighbours, so its size is (size - 1) * u + 1: that is a transposed convolution of stride u.
Everything here is per spatial axis; a stencil has 0, 1, 2 or 3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from flatfold.passes.decline import Decline

Ints = tuple[int, ...]
Sizes = tuple[int | None, ...]


@dataclass(frozen=True)
class Geometry:
    """Everything about a stencil but its numbers."""

    outputs: int
    inputs: int
    groups: int
    kernel: Ints
    strides: Ints
    dilations: Ints
    begin: Ints
    end: Ints
    upsample: Ints

    @property
    def axes(self) -> int:
        return len(self.kernel)

    @property
    def span(self) -> Ints:
        """Extent of the taps in input pixels, per axis."""
        return tuple(d * (k - 1) + 1 for d, k in zip(self.dilations, self.kernel, strict=True))

    @property
    def growth(self) -> Ints:
        """begin + end - span: with the stride it decides the output size for every input size."""
        ends = zip(self.begin, self.end, self.span, strict=True)
        return tuple(begin + end - span for begin, end, span in ends)

    @property
    def taps(self) -> int:
        return math.prod(self.kernel)

    @property
    def is_pointwise(self) -> bool:
        """One tap that looks at its own pixel: nothing spatial happens."""
        unmoved = not any(self.begin) and not any(self.end)
        return self.taps == 1 and unmoved and all(s == 1 for s in (*self.strides, *self.upsample))

    @property
    def is_transposed(self) -> bool:
        """Spreads its input out: a transposed convolution with a stride."""
        return any(u > 1 for u in self.upsample)

    @property
    def is_depthwise(self) -> bool:
        return self.groups == self.inputs == self.outputs

    @property
    def is_diagonal(self) -> bool:
        """A scale per channel: BatchNormalization, a constant Mul, identity."""
        return self.is_depthwise and self.is_pointwise

    @property
    def weights(self) -> int:
        return self.outputs * (self.inputs // self.groups) * self.taps

    def spread(self, sizes: Sizes) -> Sizes:
        """Sizes of the input once it is spread out."""
        pairs = zip(sizes, self.upsample, strict=True)
        return tuple(None if size is None else (size - 1) * u + 1 for size, u in pairs)

    def output_sizes(self, sizes: Sizes) -> Sizes:
        return tuple(
            None if size is None else (size + growth) // stride + 1
            for size, growth, stride in zip(
                self.spread(sizes), self.growth, self.strides, strict=True
            )
        )


def unknown_sizes(axes: int) -> Sizes:
    return (None,) * axes


def composed_geometry(outer: Geometry, inner: Geometry) -> Geometry:
    """Geometry of outer @ inner (outer reads what inner wrote).

    Tap offsets multiply out to s_f * o_g + o_f, and nested floors collapse, so strides multiply,
    begin = s_f * begin_g + begin_f and end = s_f * end_g + end_f hold for every input size. An
    outer stencil that spreads its input out must follow a pointwise one: the two commute.
    """
    if outer.inputs != inner.outputs or outer.axes != inner.axes:
        raise ValueError(f"cannot compose {outer} after {inner}")
    kernel, dilations = [], []
    for axis in range(outer.axes):
        steps = _steps(outer.kernel[axis], outer.dilations[axis] * inner.strides[axis])
        steps += _steps(inner.kernel[axis], inner.dilations[axis])
        step = math.gcd(*steps) if steps else 1
        reach = inner.strides[axis] * (outer.span[axis] - 1) + inner.span[axis] - 1
        kernel.append(reach // step + 1)
        dilations.append(step)
    scaled = list(zip(inner.strides, outer.begin, outer.end, strict=True))
    return Geometry(
        outputs=outer.outputs,
        inputs=inner.inputs,
        groups=math.gcd(outer.groups, inner.groups),
        kernel=tuple(kernel),
        strides=tuple(a * b for a, b in zip(outer.strides, inner.strides, strict=True)),
        dilations=tuple(dilations),
        begin=tuple(s * b + own for (s, b, _), own in zip(scaled, inner.begin, strict=True)),
        end=tuple(s * e + own for (s, _, e), own in zip(scaled, inner.end, strict=True)),
        upsample=outer.upsample if outer.is_transposed else inner.upsample,
    )


def _steps(kernel: int, step: int) -> list[int]:
    return [step] if kernel > 1 else []


def summed_geometry(parts: Sequence[Geometry], sizes: Sizes) -> Geometry:
    """Geometry of a sum of stencils over one input, aligned by tap offset, never by "centre".

    The merged taps run over the coarsest lattice that holds all offsets. Equal growth gives equal
    output sizes for every input; otherwise `sizes` must show that the sizes agree (an average pool
    of even size parallel to a 3x3 of stride 2 does so on even maps only).
    """
    first = parts[0]
    for part in parts[1:]:
        _require_summable(first, part, sizes)
    kernel, dilations, begin, end = [], [], [], []
    for axis in range(first.axes):
        low = min(-part.begin[axis] for part in parts)
        high = max(part.span[axis] - 1 - part.begin[axis] for part in parts)
        moves = [part.begin[axis] + low for part in parts]
        moves += [step for p in parts for step in _steps(p.kernel[axis], p.dilations[axis])]
        step = math.gcd(*moves) or 1
        kernel.append((high - low) // step + 1)
        dilations.append(step if high > low else 1)
        begin.append(-low)
        end.append(max(part.growth[axis] for part in parts) + high + 1)
    return Geometry(
        outputs=first.outputs,
        inputs=first.inputs,
        groups=math.gcd(*(part.groups for part in parts)),
        kernel=tuple(kernel),
        strides=first.strides,
        dilations=tuple(dilations),
        begin=tuple(begin),
        end=tuple(end),
        upsample=first.upsample,
    )


def _require_summable(one: Geometry, two: Geometry, sizes: Sizes) -> None:
    if (one.outputs, one.inputs, one.axes) != (two.outputs, two.inputs, two.axes):
        raise ValueError(f"cannot add {one} and {two}")
    if one.strides != two.strides:
        raise Decline("STRIDE", f"branches have strides {one.strides} and {two.strides}")
    if one.upsample != two.upsample:
        ups = f"{one.upsample} and {two.upsample}"
        raise Decline("STRIDE", f"branches spread out what they read by {ups}")
    if one.growth == two.growth:
        return
    mine, other = one.output_sizes(sizes), two.output_sizes(sizes)
    if None in mine or mine != other:
        raise Decline("SIZE", f"branches have the same size on some inputs only: {mine}, {other}")


def border_fault(outer: Geometry, inner: Geometry, sizes: Sizes) -> str:
    """Why outer @ inner would be wrong on the border although inner has no bias; "" if exact.

    Where `outer` reads outside `inner`'s output it must get 0. Before the start, index -1 is the
    last one outside: its taps end at span_f - 1 - begin_f - s_f, which must be below 0. Behind the
    end the first index outside must start at or behind the input's size.
    """
    sizes = inner.spread(sizes)
    for axis in range(outer.axes):
        if outer.begin[axis] > 0:
            over = inner.span[axis] - 1 - inner.begin[axis] - inner.strides[axis]
            if over >= 0:
                return f"the padding of the outer layer hides {over + 1} live columns at the start"
        if _reads_past_end(outer, inner, axis, sizes[axis]):
            over = _live_past_end(inner, axis, sizes[axis])
            if over > 0:
                return f"the padding of the outer layer hides {over} live columns at the end"
    return ""


def _reads_past_end(outer: Geometry, inner: Geometry, axis: int, size: int | None) -> bool:
    if outer.end[axis] <= 0:
        return False
    if size is None:
        return True
    length = (size + inner.growth[axis]) // inner.strides[axis] + 1
    count = (length + outer.growth[axis]) // outer.strides[axis] + 1
    last = outer.strides[axis] * (count - 1) - outer.begin[axis] + outer.span[axis] - 1
    return last >= length


def _live_past_end(inner: Geometry, axis: int, size: int | None) -> int:
    if size is None:
        return inner.span[axis] - 1 - inner.end[axis]
    length = (size + inner.growth[axis]) // inner.strides[axis] + 1
    return size - (inner.strides[axis] * length - inner.begin[axis])


def reads_outside(outer: Geometry, inner: Geometry, sizes: Sizes) -> bool:
    """Whether `outer` reads anything beyond the output of `inner` on inputs of these sizes."""
    sizes = inner.spread(sizes)
    return any(
        outer.begin[axis] > 0 or _reads_past_end(outer, inner, axis, sizes[axis])
        for axis in range(outer.axes)
    )
