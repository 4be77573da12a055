"""The edge of a stencil: outputs that are cut off, and kernel rims that are zero."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from flatfold.passes import kernels
from flatfold.passes.geometry import Ints
from flatfold.passes.stencil import Stencil, add


def crop(f: Stencil, begin: Ints, end: Ints) -> Stencil:
    """f without its first `begin` and last `end` outputs: the output range moves, taps stay."""
    shape = f.geometry
    low = tuple(b - s * c for b, s, c in zip(shape.begin, shape.strides, begin, strict=True))
    high = tuple(e - s * c for e, s, c in zip(shape.end, shape.strides, end, strict=True))
    return replace(f, geometry=replace(shape, begin=low, end=high))


def trim(f: Stencil) -> Stencil:
    """Drop kernel rims that are all zero, as far as padding allows (never down to a crop)."""
    shape = f.geometry
    index: list[slice] = [slice(None), slice(None)]
    begin, end, kernel = list(shape.begin), list(shape.end), list(shape.kernel)
    for axis, d in enumerate(shape.dilations):
        others = tuple(a for a in range(f.weight.ndim) if a != axis + 2)
        live = np.flatnonzero(np.any(f.weight != 0, axis=others))
        first, last = (int(live[0]), int(live[-1])) if len(live) else (0, 0)
        low = min(first, max(begin[axis], 0) // d)
        high = min(kernel[axis] - 1 - last, max(end[axis], 0) // d)
        index.append(slice(low, kernel[axis] - high))
        begin[axis] -= low * d
        end[axis] -= high * d
        kernel[axis] -= low + high
    if tuple(kernel) == shape.kernel:
        return f
    cut = replace(shape, begin=tuple(begin), end=tuple(end), kernel=tuple(kernel))
    return Stencil(cut, f.weight[tuple(index)], f.bias)


def uncrop(f: Stencil) -> Stencil:
    """Write crops (negative padding, which no Conv has) as zero taps in front of and behind f."""
    shape = f.geometry
    if min((*shape.begin, *shape.end), default=0) >= 0:
        return f
    spans = zip(shape.span, shape.begin, shape.end, strict=True)
    frame = replace(
        shape,
        kernel=tuple(span + max(-begin, 0) + max(-end, 0) for span, begin, end in spans),
        dilations=(1,) * shape.axes,
        begin=tuple(max(begin, 0) for begin in shape.begin),
        end=tuple(max(end, 0) for end in shape.end),
    )
    return add([f, Stencil(frame, kernels.zeros(frame))])
