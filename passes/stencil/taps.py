"""What the taps of a stencil do: outputs cut off, rims of zeros, channels never read, rolls."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from flatfold.passes.stencil import kernels
from flatfold.passes.stencil.channels import NO_CHANNEL
from flatfold.passes.stencil.geometry import Geometry, Ints, Sizes
from flatfold.passes.stencil.kernels import Weight
from flatfold.passes.stencil.stencil import Stencil, add, simplify_channels


def crop(f: Stencil, begin: Ints, end: Ints) -> Stencil:
    """f without its first `begin` and last `end` outputs: the output range moves, taps stay."""
    shape = f.geometry
    low = tuple(b - s * c for b, s, c in zip(shape.begin, shape.strides, begin, strict=True))
    high = tuple(e - s * c for e, s, c in zip(shape.end, shape.strides, end, strict=True))
    return replace(f, geometry=replace(shape, begin=low, end=high))


def trim(f: Stencil) -> Stencil:
    """Drop outer rows of a kernel that are all zero, as far as padding allows (never to a crop).

    Only outer rows are looked at, one by one, so a kernel without zeros there costs little.
    """
    shape, weight = f.geometry, f.weight
    begin, end = list(shape.begin), list(shape.end)
    for axis, d in enumerate(shape.dilations):
        while weight.shape[axis + 2] > 1 and begin[axis] >= d and not _rim(weight, axis, 0).any():
            weight, begin[axis] = _without(weight, axis, slice(1, None)), begin[axis] - d
        while weight.shape[axis + 2] > 1 and end[axis] >= d and not _rim(weight, axis, -1).any():
            weight, end[axis] = _without(weight, axis, slice(None, -1)), end[axis] - d
    if weight.shape == f.weight.shape:
        return f
    cut = replace(shape, begin=tuple(begin), end=tuple(end), kernel=weight.shape[2:])
    return replace(f, geometry=cut, weight=weight)


def as_channel_selection(f: Stencil) -> Stencil:
    """A dense weight of which each output reads one channel only, as a scale of selected channels.

    A shuffle of channels that was written as a matrix is such a weight. Any other stencil is
    returned as it is; the first output is looked at first, which decides for most.
    """
    shape, weight = f.geometry, f.weight
    if shape.groups > 1 or shape.inputs == 1 or np.count_nonzero(_reads(weight[:1])) > 1:
        return f
    reads = _reads(weight)
    if np.any(reads.sum(axis=1) > 1):
        return f
    channel = reads.argmax(axis=1).astype(np.int64)
    selected = np.take_along_axis(weight, channel.reshape(-1, *(1,) * (weight.ndim - 1)), axis=1)
    channel_index = np.where(reads.any(axis=1), channel, NO_CHANNEL)
    channel_index = (
        channel_index
        if f.channel_index is None
        else np.where(channel_index == NO_CHANNEL, NO_CHANNEL, f.channel_index[channel])
    )
    count = shape.outputs
    geometry = replace(shape, inputs=count, groups=count)
    return simplify_channels(
        Stencil(geometry, selected, f.bias, True, channel_index, f.input_channels)
    )


def _reads(weight: Weight) -> npt.NDArray[np.bool_]:
    """[outputs, inputs]: which channel each output reads."""
    taps = tuple(range(2, weight.ndim))
    reads: npt.NDArray[np.bool_] = np.any(weight != 0, axis=taps)
    return reads


def _rim(weight: Weight, axis: int, index: int) -> Weight:
    rim: Weight = weight[(slice(None),) * (axis + 2) + (index,)]
    return rim


def _without(weight: Weight, axis: int, kept: slice) -> Weight:
    rest: Weight = weight[(slice(None),) * (axis + 2) + (kept,)]
    return rest


def rolled(f: Stencil, sizes: Sizes) -> tuple[int, int] | None:
    """(axis, shift) of y[p] = x[(p - shift) mod n] along one axis of n pixels; None if it is none.

    It has two taps n pixels apart and n zeros around: one of the two always reads a zero.
    """
    shape = f.geometry
    if not shape.is_depthwise or shape.taps != 2 or shape.is_transposed or max(shape.strides) > 1:
        return None
    axis = shape.kernel.index(2)
    others = [n for side in (shape.begin, shape.end) for i, n in enumerate(side) if i != axis]
    size, begin, end = sizes[axis], shape.begin[axis], shape.end[axis]
    around = begin + end == shape.dilations[axis] == size and min(begin, end) >= 0
    return (axis, begin) if around and not any(others) and np.all(f.weight == 1) else None


def with_crop_taps(shape: Geometry) -> Geometry:
    """The shape with crops (negative padding, which no Conv has) as taps in front and behind."""
    if min((*shape.begin, *shape.end), default=0) >= 0:
        return shape
    spans = zip(shape.span, shape.begin, shape.end, strict=True)
    return replace(
        shape,
        kernel=tuple(span + max(-begin, 0) + max(-end, 0) for span, begin, end in spans),
        dilations=(1,) * shape.axes,
        begin=tuple(max(begin, 0) for begin in shape.begin),
        end=tuple(max(end, 0) for end in shape.end),
    )


def crops_to_taps(f: Stencil) -> Stencil:
    """Write crops as zero taps in front of and behind f."""
    frame = with_crop_taps(f.geometry)
    return f if frame is f.geometry else embed(frame, f)


def widened(shape: Geometry, width: int) -> Geometry:
    """The shape with `width` taps along the last axis, the new ones behind the others."""
    more = (width - shape.kernel[-1]) * shape.dilations[-1]
    kernel, end = (*shape.kernel[:-1], width), (*shape.end[:-1], shape.end[-1] + more)
    return replace(shape, kernel=kernel, end=end)


def widen(f: Stencil, width: int) -> Stencil:
    """f with zeros as further taps along the last axis, which read more of the padding."""
    return embed(widened(f.geometry, width), f)


def embed(frame: Geometry, f: Stencil) -> Stencil:
    return add([f, replace(f, geometry=frame, weight=kernels.zero_weight(frame), bias=None)])
