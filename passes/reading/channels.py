"""Operators that move data about: Slice, Gather, Concat, Pad, and shuffles of channels."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from flatfold.passes.decline import Decline
from flatfold.passes.reading.meaning import Applied, Fill, Joined
from flatfold.passes.reading.node import (
    channel_count,
    constant,
    constant_or_expanded,
    dims_of,
    ints,
    number,
    rank,
    source,
    spatial_sizes,
    why_shared,
)
from flatfold.passes.stencil.channels import all_channels
from flatfold.passes.stencil.geometry import Ints, Sizes
from flatfold.passes.stencil.stencil import channel_selection

Numbers = npt.NDArray[Any]


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


def read_concat(node: ir.Node) -> Joined:
    """Values side by side; constants among them at the ends, one number per channel each."""
    values = [source(node, i) for i in range(len(node.inputs))]
    data = tuple(value for value in values if constant_or_expanded(value) is None)
    if not data:
        raise Decline("CONSTANT", f"all {len(values)} operands are constants")
    axis = int(number(node, "axis", 0)) % rank(data[0])
    if axis == 0:
        raise Decline("NONLINEAR", "images are put side by side")
    fills = []
    for index, value in enumerate(values):
        filler = constant_or_expanded(value)
        if filler is not None:
            if 0 < index < len(values) - 1:
                told = f"{value.name}, operand {index} of {len(values)}"
                raise Decline("CONSTANT", f"a constant is put between data: {told}")
            fills.append(_fill(value, filler, axis, index == 0))
    return Joined(data, axis, tuple(fills))


def _fill(value: ir.Value, array: Numbers, axis: int, at_start: bool) -> Fill:
    sizes = dims_of(value)
    rows, count = sizes[axis], sizes[1]
    shape = (1,) * (len(sizes) - array.ndim) + array.shape
    if not rows or not count or axis == 1 or array.ndim > len(sizes):
        told = f"constant channels {value.name} of shape {array.shape}"
        raise Decline("CONSTANT", f"{told} are put beside data")
    by_channel = array.reshape(shape).swapaxes(0, 1).reshape(shape[1], -1).astype(np.float64)
    if np.any(by_channel != by_channel[:, :1]):
        told = f"the constant {value.name}, put beside data, varies on the map"
        raise Decline("NOT-PER-CHANNEL", f"{told}: {array.min():g} to {array.max():g}")
    return Fill(np.broadcast_to(by_channel[:, 0], (count,)), rows, at_start)


def read_shuffle(node: ir.Node) -> Applied:
    """Reshape, Transpose, Reshape that permute the channels: [N, g, C / g, ..] and back."""
    turn = _only_producer(node.inputs[0], "Transpose")
    split = _only_producer(turn.inputs[0] if turn else None, "Reshape")
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


def _only_producer(value: ir.Value | None, op_type: str) -> ir.Node | None:
    """The node of this type that makes a value which nobody else reads."""
    node = value.producer() if value is not None else None
    if (
        value is None
        or node is None
        or node.op_type != op_type
        or node.domain not in ("", "ai.onnx")
    ):
        return None
    return None if why_shared(value) is not None else node
