"""Operators whose outputs are weighted means of pixels of one channel: a map passes through them.

The weights of a mean add up to 1, so T(s x + t) = s T(x) + t at every pixel, whatever the weights.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from flatfold.passes.decline import Decline
from flatfold.passes.reading.meaning import Transparent
from flatfold.passes.reading.node import constant, dims_of, number, padding, rank, source, text

COPYING_MODES = ("reflect", "edge", "wrap")
MEANS = ("nearest", "linear")


def read_resize(node: ir.Node) -> Transparent:
    """A Resize of the pixels alone, nearest or linear, in whatever coordinates.

    Not one that crops: it has a number of its own for what lies outside the map.
    """
    data = source(node)
    if text(node, "mode", "nearest") not in MEANS or number(node, "antialias", 0) != 0:
        raise Decline("NONLINEAR", "only a Resize by the nearest pixel or linear ones is read")
    if text(node, "coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize":
        raise Decline("NONLINEAR", "a Resize that crops has a number for what is outside")
    policy = text(node, "keep_aspect_ratio_policy", "stretch")
    if node.attributes.get("axes") is not None or policy not in ("", "stretch"):
        raise Decline("NONLINEAR", "only a Resize by scales or sizes of all axes is read")
    before, after = dims_of(data), dims_of(node.outputs[0])
    scales = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    kept = scales is not None and scales.size == len(before) and bool(np.all(scales[:2] == 1))
    known = before[1] is not None and before[1] == after[1] and before[0] == after[0]
    if rank(data) < 3 or not (kept or (known and before[0] is not None)):
        raise Decline("NONLINEAR", "it may resize the channels or the batch")
    return Transparent(data, spatial=rank(data) - 2, matrix=None)


def read_copying_pad(node: ir.Node) -> Transparent:
    """A Pad of the pixels by copies of other pixels: reflect, edge or wrap."""
    data = source(node)
    if text(node, "mode", "constant") not in COPYING_MODES:
        raise Decline("NONLINEAR", "the Pad writes a number of its own")
    (pads, _, axes), rank_ = padding(node), rank(data)
    if len(pads) != 2 * len(axes) or rank_ < 3:
        raise Decline("NOT-CONSTANT", "the pads are not constant")
    ends = zip(axes.tolist(), *np.reshape(pads, (2, -1)), strict=True)
    moved = {axis % rank_ for axis, begin, end in ends if begin or end}
    if moved & {0, 1}:
        raise Decline("PAD-MODE", "the Pad copies channels or images")
    return Transparent(data, spatial=rank_ - 2, matrix=None)


def copied_axes(node: ir.Node) -> set[int]:
    """The axes along which a Slice, Gather or Tile copies parts; Decline where that is not said."""
    rank_ = rank(source(node))
    if node.op_type == "Gather":
        index = node.inputs[1]
        if index is None or index.shape is None or index.shape.rank() != 1:
            raise Decline("NONLINEAR", "a Gather by other than a list changes the axes")
        return {int(number(node, "axis", 0)) % rank_}
    if node.op_type == "Tile":
        repeats = constant(node.inputs[1]) if len(node.inputs) > 1 else None
        if repeats is None:
            raise Decline("NOT-CONSTANT", "the repeats of a Tile are not constant")
        return {axis for axis, count in enumerate(repeats.reshape(-1)) if count != 1}
    if "axes" in node.attributes:
        return {axis % rank_ for axis in node.attributes["axes"].as_ints()}
    if len(node.inputs) < 4 or node.inputs[3] is None:
        return set(range(rank_))
    axes = constant(node.inputs[3])
    if axes is None:
        raise Decline("NOT-CONSTANT", "the axes of a Slice are not constant")
    return {int(axis) % rank_ for axis in axes.reshape(-1)}
