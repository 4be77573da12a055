"""Operators that move data about: Slice, Gather, Concat, Pad, and shuffles of channels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from flatfold.passes.elementary import moved, picked
from flatfold.passes.geometry import Decline, Ints, Sizes
from flatfold.passes.picks import NOTHING, every
from flatfold.passes.reading import (
    Applied,
    Fill,
    Joined,
    channels,
    constant,
    ints,
    known,
    number,
    rank,
    source,
    spatial,
    unexpanded,
)
from flatfold.passes.sharing import shared
from flatfold.passes.stencil import compose, rows

Numbers = npt.NDArray[Any]

EVERYTHING = 2**31 - 1  # exporters write the end of an axis as this or more


def read_slice(node: ir.Node) -> Applied:
    """A crop on spatial axes (negative padding), a choice of channels on axis 1."""
    given = [value for value in node.inputs[1:] if value is not None]
    arrays = [constant(value) for value in given]
    computed = [str(v.name) for v, array in zip(given, arrays, strict=True) if array is None]
    if computed or len(given) < 2:
        raise Decline("NOT-CONSTANT", f"the range is not constant: {', '.join(computed)}")
    data = source(node)
    sizes = spatial(data)
    starts, ends = (array.reshape(-1).tolist() for array in arrays[:2] if array is not None)
    axes, steps = _axes_and_steps(node, len(starts))
    begin, end, strides = [0] * len(sizes), [0] * len(sizes), [1] * len(sizes)
    index = every(channels(data))
    for first, last, axis, step in zip(starts, ends, axes, steps, strict=True):
        if (first, step) == (0, 1) and last >= EVERYTHING:
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
        raise Decline("SLICE", f"the range holds none of {channels(data)} channels")
    move = moved(len(index), tuple(begin), tuple(end), tuple(strides))
    return Applied(data, compose(move, picked(index, channels(data), len(sizes))))


def _range(first: int, last: int, step: int, size: int) -> slice:
    """The range as Python has it: an end before the first element is written as none."""
    if step < 0 and last < -size:
        return slice(first, None, step)
    return slice(first, last, step)


def _axes_and_steps(node: ir.Node, count: int) -> tuple[list[int], list[int]]:
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
    if first < 0 or 0 <= last < EVERYTHING:
        raise Decline("SHAPE", f"the range from {first} to {last} depends on an unknown size")
    return -first, min(last, 0) if last < 0 else 0


def read_gather(node: ir.Node) -> Applied:
    """Channels by a constant list; they may repeat."""
    data, index = source(node), constant(node.inputs[1])
    if index is None:
        raise Decline("NOT-CONSTANT", f"the indices {source(node, 1).name} are not constant")
    if int(number(node, "axis", 0)) % rank(data) != 1 or index.ndim != 1 or not index.size:
        raise Decline("NONLINEAR", "only a list of channels is a choice of channels")
    count = channels(data)
    outside = index[(index < -count) | (index >= count)]
    if outside.size:
        raise Decline("ATTRIBUTE", f"the index {outside[0]} is outside the {count} channels")
    return Applied(data, picked(index.astype(np.int64) % count, count, len(spatial(data))))


def read_concat(node: ir.Node) -> Joined:
    """Values side by side; constants among them at the ends, one number per channel each."""
    values = [source(node, i) for i in range(len(node.inputs))]
    data = tuple(value for value in values if unexpanded(value) is None)
    if not data:
        raise Decline("CONSTANT", f"all {len(values)} operands are constants")
    axis = int(number(node, "axis", 0)) % rank(data[0])
    if axis == 0:
        raise Decline("NONLINEAR", "images are put side by side")
    fills = []
    for index, value in enumerate(values):
        filler = unexpanded(value)
        if filler is not None:
            if 0 < index < len(values) - 1:
                told = f"{value.name}, operand {index} of {len(values)}"
                raise Decline("CONSTANT", f"a constant is put between data: {told}")
            fills.append(_fill(value, filler, axis, index == 0))
    return Joined(data, axis, tuple(fills))


def _fill(value: ir.Value, array: Numbers, axis: int, at_start: bool) -> Fill:
    sizes = known(value)
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


def read_pad(node: ir.Node) -> Applied:
    """Zeros around the map, and channels of zeros around its channels; of either, a crop."""
    mode = node.attributes.get("mode")
    if mode is not None and mode.as_string() != "constant":
        raise Decline("PAD-MODE", f"padding by {mode.as_string()} is not padding by zero")
    pads, fill, axes = _padding(node)
    if np.any(fill != 0):
        raise Decline("PAD-MODE", f"padding by {fill.item():g} is not padding by zero")
    data = source(node)
    both = np.zeros((2, rank(data)), dtype=np.int64)
    both[:, axes.astype(np.int64)] = pads.reshape(2, -1)
    if np.any(both[:, 0]):
        raise Decline("PAD-MODE", f"the batch is padded by {both[:, 0].tolist()}")
    begin, end = (tuple(int(n) for n in side[2:]) for side in both)
    move, count = moved(channels(data), begin, end), channels(data)
    if not np.any(both[:, 1]):
        return Applied(data, move)
    index = np.arange(-both[0, 1], count + both[1, 1])
    if not len(index):
        raise Decline("PAD-MODE", f"none of {count} channels is left")
    return Applied(data, rows(move, np.where((index < 0) | (index >= count), NOTHING, index)))


def _padding(node: ir.Node) -> tuple[Numbers, Numbers, Numbers]:
    """(pads, fill, axes) of a Pad: inputs, or attributes before opset 11."""
    every_axis: Numbers = np.arange(rank(source(node)))
    attribute = node.attributes.get("pads", node.attributes.get("paddings"))
    if attribute is not None:
        value = np.array(number(node, "value", 0.0))
        return np.array(ints(node, attribute.name, ())), value, every_axis
    given = [(value, constant(value)) for value in node.inputs[1:]]
    computed = [str(v.name) for v, array in given if v is not None and array is None]
    if computed:
        raise Decline("NOT-CONSTANT", f"the padding is not constant: {', '.join(computed)}")
    pads, fill, axes = [*(array for _, array in given), None, None][:3]
    if pads is None:
        raise Decline("NOT-CONSTANT", "the padding, input 1 of the node, is missing")
    return pads, np.zeros(1) if fill is None else fill, every_axis if axes is None else axes


def read_shuffle(node: ir.Node) -> Applied:
    """Reshape, Transpose, Reshape that permute the channels: [N, g, C / g, ..] and back."""
    turn = _only_producer(node.inputs[0], "Transpose")
    split = _only_producer(turn.inputs[0] if turn else None, "Reshape")
    if turn is None or split is None:
        raise Decline("NONLINEAR", "Reshape is not linear")
    data = source(split)
    count, sizes = channels(data), spatial(data)
    inner, outer = known(split.outputs[0]), known(node.outputs[0])
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
    index = every(count).reshape(split_sizes).transpose(turned).reshape(-1)
    through = (turn.outputs[0], split.outputs[0])
    return Applied(data, picked(index, count, len(sizes)), through)


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
    return None if shared(value) is not None else node


SELECTORS: dict[str, Callable[[ir.Node], Applied | Joined]] = {
    "Concat": read_concat,
    "Gather": read_gather,
    "Pad": read_pad,
    "Slice": read_slice,
}
