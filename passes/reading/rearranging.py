"""Operators that move numbers and compute nothing: where the channels of a map are afterwards.

A map of the channels passes through them if what is one channel on its far side is one channel on
its near side. That is asked of the numbers themselves: each is replaced by the channel that it
belongs to, and the operators move these. So it does not matter how a pixel shuffle, a window
partition or a change of layout is spelled.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from flatfold.passes.decline import Decline
from flatfold.passes.reading.channels import axes_and_steps
from flatfold.passes.reading.node import (
    constant,
    dims_of,
    ints,
    number,
    rank,
    source,
    text,
    why_shared,
)

VIEWS = ("Flatten", "Reshape", "Squeeze", "Unsqueeze")
BLOCKS = ("DepthToSpace", "SpaceToDepth")
COPIES = ("Expand", "Gather", "Slice", "Tile")
MOVERS = (*VIEWS, "Transpose", *BLOCKS, *COPIES)

MOST_ELEMENTS = 1 << 20  # numbers that are moved to see where they go
OPEN = 2  # along an axis of unknown size
MOST_NODES = 5

Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Rearranged:
    """What `nodes`, in order, do with the channels of what the first of them reads.

    `front` and `behind` are the spatial axes of a map of the channels on either side: those behind
    axis 1, or 0 where the channels are the last axis. Channel j behind them holds numbers of
    channels `channels[j]` in front, and of no others.
    """

    nodes: tuple[ir.Node, ...]
    front: int
    behind: int
    channels: tuple[Labels, ...]


def rearranged(nodes: Sequence[ir.Node], front: int, behind: int) -> Rearranged:
    """Raises Decline where sizes are not known, or the nodes do more than move numbers."""
    labels = _moved_labels(nodes, front)
    axis = 1 if behind else labels.ndim - 1
    if behind not in (0, labels.ndim - 2) or labels.ndim < 2:
        raise Decline("LAYOUT", "the channels are not along one axis behind it")
    after = dims_of(nodes[-1].outputs[0])
    if len(after) != labels.ndim or after[axis] != labels.shape[axis]:
        raise Decline("SHAPE", f"the number of channels behind {nodes[-1].name} is not known")
    if not labels.size:
        raise Decline("SHAPE", f"{nodes[-1].name} moves no numbers")
    rows = np.moveaxis(labels, axis, 0).reshape(labels.shape[axis], -1)
    one = rows.min(axis=1)
    if np.array_equal(one, rows.max(axis=1)):
        channels = tuple(one[:, None])
    else:
        channels = tuple(np.unique(row) for row in rows)
    return Rearranged(tuple(nodes), front, behind, channels)


def rearrangement_to(node: ir.Node) -> Rearranged:
    """The shortest rearrangement that ends in `node` and keeps channels apart, behind a map.

    Raises Decline where there is none.
    """
    nodes: list[ir.Node] = []
    last: ir.Node | None = node
    while last is not None and _moves(last) and len(nodes) < MOST_NODES:
        nodes.insert(0, last)
        data = source(last)
        if _is_behind_map(data):
            for front in _layouts(data, nodes):
                for behind in dict.fromkeys((rank(node.outputs[0]) - 2, 0)):
                    found = rearranged(nodes, front, behind)
                    if all(len(channels) == 1 for channels in found.channels):
                        return found
        last = data.producer() if why_shared(data) is None else None
    raise Decline("NONLINEAR", f"{node.op_type} mixes channels and pixels")


def _layouts(data: ir.Value, nodes: Sequence[ir.Node]) -> Sequence[int]:
    """The spatial axes of a map that may be in front: where its channels are is not always told."""
    axes, producer = rank(data) - 2, data.producer()
    of_axis_1 = producer is not None and producer.op_type in ("BatchNormalization", "Conv")
    if of_axis_1 or any(node.op_type in BLOCKS for node in nodes):
        return (axes,)
    return tuple(dict.fromkeys((axes, 0)))


MAPS = ("Add", "BatchNormalization", "Conv", "Div", "Mul", "Sub", "Sum")


def _is_behind_map(data: ir.Value) -> bool:
    """Whether a map of the channels may be in front: else there is nothing to move."""
    producer = data.producer()
    return producer is not None and producer.op_type in MAPS


def _moves(node: ir.Node) -> bool:
    return node.op_type in MOVERS and node.domain in ("", "ai.onnx")


def _moved_labels(nodes: Sequence[ir.Node], front: int) -> Labels:
    """The channel that each number of the result belonged to, for OPEN images if that is open."""
    data = source(nodes[0])
    sizes = _some_sizes(data, nodes)
    if front not in (0, len(sizes) - 2) or len(sizes) < 2:
        raise Decline("LAYOUT", "the channels are not along one axis in front of it")
    axis = 1 if front else len(sizes) - 1
    if dims_of(data)[axis] is None:
        raise Decline("SHAPE", f"the number of channels of {data.name} is not known")
    shape = [1] * len(sizes)
    shape[axis] = sizes[axis]
    labels: Labels = np.broadcast_to(np.arange(sizes[axis]).reshape(shape), sizes)
    for node in nodes:
        try:
            labels = _moved(node, labels)
        except (ValueError, IndexError):
            raise Decline("SHAPE", f"it is not known where {node.name} moves numbers") from None
        if labels.size > MOST_ELEMENTS:
            raise Decline("SHAPE", f"{node.name} moves too many numbers to follow")
    return labels


def _some_sizes(data: ir.Value, nodes: Sequence[ir.Node]) -> tuple[int, ...]:
    """The sizes, OPEN for an open batch. Other open ones may be any where no view counts them.

    At 1, an axis that is moved, or mixed with another, would not show.
    """
    dims = dims_of(data)
    counted = any(node.op_type not in (*BLOCKS, "Transpose") for node in nodes)
    if counted and None in dims[1:]:
        raise Decline("SHAPE", f"the sizes of {data.name} are not known")
    blocks = [int(number(node, "blocksize", 1)) for node in nodes]
    free = math.prod(blocks)
    sizes = tuple((free if axis else 1) * OPEN if n is None else n for axis, n in enumerate(dims))
    if math.prod(sizes) > MOST_ELEMENTS:
        raise Decline("SHAPE", f"{data.name} has too many numbers to follow")
    return sizes


def _moved(node: ir.Node, x: Labels) -> Labels:
    kind = node.op_type
    if kind in VIEWS:
        view: Labels = x.reshape([-1 if n is None else n for n in dims_of(node.outputs[0])])
        return view
    if kind == "Transpose":
        turned: Labels = x.transpose(ints(node, "perm", tuple(reversed(range(x.ndim)))))
        return turned
    if kind in BLOCKS:
        return _moved_blocks(node, x)
    if kind == "Slice":
        return _sliced(node, x)
    given = constant(node.inputs[1]) if len(node.inputs) > 1 else None
    if given is None:
        raise Decline("NOT-CONSTANT", f"what {node.name} copies is not constant")
    if kind == "Gather":
        taken: Labels = x.take(given.astype(np.int64), axis=int(number(node, "axis", 0)))
        return taken
    if kind == "Tile":
        return np.tile(x, given.tolist())
    return np.broadcast_to(x, np.broadcast_shapes(x.shape, tuple(given.tolist())))


def _moved_blocks(node: ir.Node, x: Labels) -> Labels:
    n, c, h, w = x.shape
    b = int(number(node, "blocksize", 1))
    if node.op_type == "SpaceToDepth":
        parts = x.reshape(n, c, h // b, b, w // b, b).transpose(0, 3, 5, 1, 2, 4)
        whole: Labels = parts.reshape(n, c * b * b, h // b, w // b)
        return whole
    if text(node, "mode", "DCR") == "CRD":
        parts = x.reshape(n, c // (b * b), b, b, h, w).transpose(0, 1, 4, 2, 5, 3)
    else:
        parts = x.reshape(n, b, b, c // (b * b), h, w).transpose(0, 3, 4, 1, 5, 2)
    whole = parts.reshape(n, c // (b * b), h * b, w * b)
    return whole


def _sliced(node: ir.Node, x: Labels) -> Labels:
    ends = [constant(value) for value in node.inputs[1:3]]
    if len(ends) < 2 or ends[0] is None or ends[1] is None:
        raise Decline("NOT-CONSTANT", f"the range of {node.name} is not constant")
    firsts, lasts = (array.reshape(-1).tolist() for array in ends if array is not None)
    axes, steps = axes_and_steps(node, len(firsts))
    cut = [slice(None)] * x.ndim
    for first, last, axis, step in zip(firsts, lasts, axes, steps, strict=True):
        none = step < 0 and last < -x.shape[axis]
        cut[axis] = slice(int(first), None if none else int(last), int(step))
    return x[tuple(cut)]
