"""Operators that choose or permute channels: Gather, Slice, and shuffles."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from flatfold.passes.decline import Decline
from flatfold.passes.reading.meaning import Applied
from flatfold.passes.reading.node import (
    TO_THE_END,
    channel_count,
    constant,
    dims_of,
    ints,
    number,
    only_producer,
    rank,
    source,
    spatial_sizes,
)
from flatfold.passes.stencil.channels import all_channels
from flatfold.passes.stencil.geometry import Ints, Sizes
from flatfold.passes.stencil.stencil import channel_selection, compose, translation


def read_gather(node: ir.Node) -> Applied:
    """Channels by a constant list; they may repeat."""
    data, index = source(node), constant(node.inputs[1])
    if index is None:
        raise Decline("NOT-CONSTANT", f"the indices {source(node, 1).name} are not constant")
    if int(number(node, "axis", 0)) % rank(data) != 1 or index.ndim != 1 or not index.size:
        raise Decline("NONLINEAR", "only a list of channels is a choice of channels")
    count = channel_count(data)
    outside = index[(index < -count) | (index >= count)]
    if outside.size:
        raise Decline("ATTRIBUTE", f"the index {outside[0]} is outside the {count} channels")
    return Applied(
        data, channel_selection(index.astype(np.int64) % count, count, len(spatial_sizes(data)))
    )


def read_slice(node: ir.Node) -> Applied:
    """A crop on spatial axes (negative padding), a choice of channels on axis 1."""
    given = [value for value in node.inputs[1:] if value is not None]
    arrays = [constant(value) for value in given]
    computed = [str(v.name) for v, array in zip(given, arrays, strict=True) if array is None]
    if computed or len(given) < 2:
        raise Decline("NOT-CONSTANT", f"the range is not constant: {', '.join(computed)}")
    data = source(node)
    sizes = spatial_sizes(data)
    starts, ends = (array.reshape(-1).tolist() for array in arrays[:2] if array is not None)
    axes, steps = axes_and_steps(node, len(starts))
    begin, end, strides = [0] * len(sizes), [0] * len(sizes), [1] * len(sizes)
    index = all_channels(channel_count(data))
    for first, last, axis, step in zip(starts, ends, axes, steps, strict=True):
        if (first, step) == (0, 1) and last >= TO_THE_END:
            continue  # the whole of an axis, whichever it is
        at = axis % (len(sizes) + 2) - 2
        if at == -1:
            index = index[_range(int(first), int(last), int(step), len(index))]
            continue
        if at < 0 or step < 1:
            raise Decline("SLICE", f"the range of axis {axis} has step {step}; axis 0 is the batch")
        begin[at], end[at] = _cut(int(first), int(last), sizes[at])
        strides[at] = int(step)
    if not len(index):
        raise Decline("SLICE", f"the range holds none of {channel_count(data)} channels")
    move = translation(len(index), tuple(begin), tuple(end), tuple(strides))
    return Applied(data, compose(move, channel_selection(index, channel_count(data), len(sizes))))


def _range(first: int, last: int, step: int, size: int) -> slice:
    """The range as Python has it: an end before the first element is written as none."""
    if step < 0 and last < -size:
        return slice(first, None, step)
    return slice(first, last, step)


def axes_and_steps(node: ir.Node, count: int) -> tuple[list[int], list[int]]:
    """The axes and steps of a Slice of `count` ranges, as constants give them or left out."""
    given = [constant(value) for value in node.inputs[3:]] + [None, None]
    axes = list(range(count)) if given[0] is None else given[0].reshape(-1).tolist()
    steps = [1] * count if given[1] is None else given[1].reshape(-1).tolist()
    return axes, steps


def _cut(first: int, last: int, size: int | None) -> tuple[int, int]:
    """(begin, end) padding, both at most 0, of x[first:last]."""
    if size is not None:
        low, high, _ = slice(first, last).indices(size)
        if high <= low:
            raise Decline("SLICE", f"the range from {first} to {last} holds none of {size} pixels")
        return -low, high - size
    if first < 0 or 0 <= last < TO_THE_END:
        raise Decline("SHAPE", f"the range from {first} to {last} depends on an unknown size")
    return -first, min(last, 0) if last < 0 else 0


def read_channel_slice(node: ir.Node) -> Applied:
    """A Slice that takes some of the channels and every pixel."""
    linear = read_slice(node)
    if not linear.stencil.geometry.is_pointwise:
        raise Decline("NONLINEAR", "the pixels are cut, too")
    return linear


def read_shuffle(node: ir.Node) -> Applied:
    """Reshape, Transpose, Reshape that permute the channels: [N, g, C / g, ..] and back."""
    turn = only_producer(node.inputs[0], "Transpose")
    split = only_producer(turn.inputs[0] if turn else None, "Reshape")
    if turn is None or split is None:
        raise Decline("NONLINEAR", "Reshape is not linear")
    data = source(split)
    count, sizes = channel_count(data), spatial_sizes(data)
    inner, outer = dims_of(split.outputs[0]), dims_of(node.outputs[0])
    order = ints(turn, "perm", ())
    parts = len(inner) - len(sizes) - 1
    if (
        parts < 2
        or len(order) != len(inner)
        or order[0] != 0
        or order[1 + parts :] != tuple(range(1 + parts, len(inner)))
    ):
        raise Decline("NONLINEAR", "more than the channels are permuted")
    split_sizes = tuple(n for n in inner[1 : 1 + parts] if n)
    if not _channels_only(sizes, inner, outer, count, split_sizes, parts):
        raise Decline("NONLINEAR", "more than the channels are permuted")
    turned = tuple(axis - 1 for axis in order[1 : 1 + parts])
    index = all_channels(count).reshape(split_sizes).transpose(turned).reshape(-1)
    through = (turn.outputs[0], split.outputs[0])
    return Applied(data, channel_selection(index, count, len(sizes)), through)


def _channels_only(
    sizes: Sizes, inner: Sizes, outer: Sizes, count: int, split: Ints, parts: int
) -> bool:
    """Whether the batch and the pixels stay what they are, and the parts make up the channels."""
    whole = len(split) == parts and int(np.prod(split)) == count
    pixels = inner[1 + parts :] == sizes and outer[2:] == sizes and None not in sizes
    return whole and pixels and len(outer) == len(sizes) + 2 and outer[1] == count
