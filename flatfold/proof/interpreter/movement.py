"""Rules of the operators that only move numbers: Pad, Slice, Transpose and the like.

Each returns the output of a node for its operands; the table that names them is `operators`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from flatfold.proof.interpreter.pair import Pair, Unsupported, attribute, given

Array = npt.NDArray[Any]


def pad(node: ir.Node, arguments: list[Pair | None]) -> Pair:
    x = given(arguments[0])
    old_form = attribute(node, "pads", None)  # an attribute before opset 11
    pads = np.array(old_form) if old_form else given(arguments[1]).y.astype(np.int64)
    fill = arguments[2] if len(arguments) > 2 else None
    if fill is None and attribute(node, "value", 0.0):
        number = np.array(attribute(node, "value", 0.0))
        fill = Pair(number, np.abs(number))
    mode = attribute(node, "mode", "constant")
    axes = np.arange(x.y.ndim)
    if len(arguments) > 3:
        axes = given(arguments[3]).y.astype(np.int64)
    if mode in ("reflect", "edge", "wrap"):
        return _pad_by_copies(x, mode, axes, pads)
    if mode != "constant":
        raise Unsupported(f"Pad by {mode}")
    y, m, outside = x.y, x.m, np.zeros(x.y.shape)
    for axis, begin, end in zip(axes % x.y.ndim, *pads.reshape(2, -1), strict=True):
        shape = list(y.shape)
        cut = slice(max(-begin, 0), shape[axis] - max(-end, 0))
        width = [(0, 0)] * y.ndim
        width[axis] = (max(begin, 0), max(end, 0))
        index = tuple(cut if a == axis else slice(None) for a in range(y.ndim))
        y, m = np.pad(y[index], width), np.pad(m[index], width)
        outside = np.pad(outside[index], width, constant_values=1.0)
    if fill is None or not np.any(fill.y):
        return Pair(y, m)
    if not np.all(np.isfinite(fill.m)):
        raise Unsupported("Pad by a number that is not finite")
    return Pair(y + fill.y.reshape(()) * outside, m + fill.m.reshape(()) * outside)


def _pad_by_copies(x: Pair, mode: Any, axes: Array, pads: Array) -> Pair:
    """Each position is a copy of one of the map: NumPy's modes have the names of ONNX's."""
    y, m = x.y, x.m
    for axis, begin, end in zip(axes % y.ndim, *pads.reshape(2, -1), strict=True):
        if begin or end:
            size = y.shape[axis]
            if min(begin, end) < 0 or (mode == "reflect" and max(begin, end) >= size):
                raise Unsupported(f"Pad by {begin} and {end} of {size} pixels, {mode}")
            index = np.pad(np.arange(size), (int(begin), int(end)), mode=mode)
            y, m = np.take(y, index, axis), np.take(m, index, axis)
    return Pair(y, m)


def slice_(node: ir.Node, arguments: list[Pair | None]) -> Pair:
    x = given(arguments[0])
    starts, ends = (given(a).y.astype(np.int64) for a in arguments[1:3])
    rest = [None if a is None else a.y.astype(np.int64) for a in arguments[3:]]
    axes = rest[0] if rest and rest[0] is not None else np.arange(len(starts))
    steps = rest[1] if len(rest) > 1 and rest[1] is not None else np.ones_like(starts)
    index = [slice(None)] * x.y.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        index[axis] = slice(int(start), int(end), int(step))
    return Pair(x.y[tuple(index)], x.m[tuple(index)])


def concat(node: ir.Node, arguments: list[Pair | None]) -> Pair:
    pairs, axis = [given(a) for a in arguments], attribute(node, "axis", 0)
    y, m = ([getattr(pair, part) for pair in pairs] for part in ("y", "m"))
    return Pair(np.concatenate(y, axis), np.concatenate(m, axis))


def gather(node: ir.Node, arguments: list[Pair | None]) -> Pair:
    x, axis = given(arguments[0]), attribute(node, "axis", 0)
    index = given(arguments[1]).y.astype(np.int64)
    return Pair(np.take(x.y, index, axis), np.take(x.m, index, axis))


def tile(_: ir.Node, arguments: list[Pair | None]) -> Pair:
    x, repeats = given(arguments[0]), given(arguments[1]).y.astype(np.int64)
    y, m = x.y, x.m
    for axis, count in enumerate(repeats.tolist()):
        index = np.tile(np.arange(y.shape[axis]), count)
        y, m = np.take(y, index, axis), np.take(m, index, axis)
    return Pair(y, m)


def reshape(node: ir.Node, arguments: list[Pair | None]) -> Pair:
    x, target = given(arguments[0]), given(arguments[1]).y.astype(np.int64).tolist()
    copies = not attribute(node, "allowzero", 0)  # 0 stands for the size of the input
    shape = [x.y.shape[i] if n == 0 and copies else n for i, n in enumerate(target)]
    return Pair(x.y.reshape(shape), x.m.reshape(shape))


def transpose(node: ir.Node, arguments: list[Pair | None]) -> Pair:
    x = given(arguments[0])
    order = attribute(node, "perm", tuple(reversed(range(x.y.ndim))))
    return Pair(x.y.transpose(order), x.m.transpose(order))


def depth_to_space(node: ir.Node, arguments: list[Pair | None]) -> Pair:
    """Blocks of pixels of each channel from the pixels of several channels."""
    x, b = given(arguments[0]), attribute(node, "blocksize", 1)
    n, c, h, w = x.y.shape
    if attribute(node, "mode", "DCR") == "CRD":
        split, order = (n, c // b**2, b, b, h, w), (0, 1, 4, 2, 5, 3)
    else:
        split, order = (n, b, b, c // b**2, h, w), (0, 3, 4, 1, 5, 2)
    whole = (n, c // b**2, h * b, w * b)
    y, m = (array.reshape(split).transpose(order).reshape(whole) for array in (x.y, x.m))
    return Pair(y, m)


def space_to_depth(node: ir.Node, arguments: list[Pair | None]) -> Pair:
    """The pixels of each block as channels of their own."""
    x, b = given(arguments[0]), attribute(node, "blocksize", 1)
    n, c, h, w = x.y.shape
    split, whole = (n, c, h // b, b, w // b, b), (n, c * b**2, h // b, w // b)
    order = (0, 3, 5, 1, 2, 4)
    y, m = (array.reshape(split).transpose(order).reshape(whole) for array in (x.y, x.m))
    return Pair(y, m)


def expand(_: ir.Node, arguments: list[Pair | None]) -> Pair:
    x, wanted = given(arguments[0]), given(arguments[1]).y.astype(np.int64).tolist()
    shape = np.broadcast_shapes(x.y.shape, tuple(wanted))
    ones = np.ones(shape)
    return Pair(x.y * ones, x.m * ones)


def shape(_: ir.Node, arguments: list[Pair | None]) -> Pair:
    sizes = np.array(given(arguments[0]).y.shape, dtype=np.float64)
    return Pair(sizes, sizes)


def flatten(node: ir.Node, arguments: list[Pair | None]) -> Pair:
    x, axis = given(arguments[0]), attribute(node, "axis", 1)
    shape = (int(np.prod(x.y.shape[:axis])), -1)
    return Pair(x.y.reshape(shape), x.m.reshape(shape))


def _axes_of(node: ir.Node, arguments: list[Pair | None]) -> list[int]:
    axes = attribute(node, "axes", None)
    return list(axes) if axes is not None else given(arguments[1]).y.astype(np.int64).tolist()


def squeeze(node: ir.Node, arguments: list[Pair | None]) -> Pair:
    x, axes = given(arguments[0]), tuple(_axes_of(node, arguments))
    return Pair(x.y.squeeze(axes), x.m.squeeze(axes))


def unsqueeze(node: ir.Node, arguments: list[Pair | None]) -> Pair:
    x, axes = given(arguments[0]), tuple(_axes_of(node, arguments))
    return Pair(np.expand_dims(x.y, axes), np.expand_dims(x.m, axes))
