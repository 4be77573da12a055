"""Writes into a part of a tensor become concatenations, and with zeros, or into them, Pad."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from flatfold.frontend.canonicalize.edit import (
    Insertion,
    constant,
    perm_of,
    resized,
    source_of,
    stand_in,
)
from flatfold.frontend.canonicalize.shape_rules import number
from flatfold.frontend.canonicalize.symbolic_dims import Facts, Known, Size, constant_of


@dataclass(frozen=True)
class Side:
    """Positions `start` to `end` of an axis that has `size`."""

    axis: int
    start: int
    end: int
    size: int


def box_of(node: ir.Node, facts: Facts) -> tuple[Side, ...] | None:
    """The axes that the write of `node` is restricted along; None if it writes no box in order.

    Its updates then have the shape of the box: each index is written once, by the update at
    the same place in the box.
    """
    sizes = facts.sizes(node.inputs[0])
    if sizes is None or ("reduction" in node.attributes and _reduction(node) != "none"):
        return None
    ranges = _ranges_nd(node, facts) if node.op_type == "ScatterND" else None
    if node.op_type == "ScatterElements":
        ranges = _ranges_elements(node, facts, sizes)
    if ranges is None or len(ranges) > len(sizes):
        return None
    sides = [_side(i, *span, sizes[i]) for i, span in enumerate(ranges)]
    if any(side is None for side in sides):
        return None
    return tuple(side for side in sides if side is not None and side.start < side.end)


def _reduction(node: ir.Node) -> str:
    return node.attributes["reduction"].as_string()


def _side(axis: int, start: int, count: Size, size: Size) -> Side | None:
    """The restriction of one axis; an empty one if it is written from end to end."""
    whole = Side(axis, 0, 0, 0)
    if start == 0 and count is not None and count == size:
        return whole
    if not isinstance(count, int) or not isinstance(size, int) or count < 1:
        return None
    first = start + size if start < 0 else start
    if not 0 <= first <= size - count:
        return None
    return whole if count == size else Side(axis, first, first + count, size)


def _ranges_nd(node: ir.Node, facts: Facts) -> list[tuple[int, Size]] | None:
    """Start and length along the first axes of the data."""
    indices = facts.integers(node.inputs[1])
    if indices is not None:
        return _dense_ranges(indices)
    known = facts.of(node.inputs[1])
    if known is None:
        return None
    runs, grid = known.runs, known.shape[:-1]
    if not known.stacked:
        return _single_range(known)
    if len(runs) != len(grid):
        return None
    for axis, run in enumerate(runs):
        if run.axis != axis and (run.axis is not None or grid[axis] != 1):
            return None
    return [(run.start, size) for run, size in zip(runs, grid, strict=True)]


def _single_range(known: Known) -> list[tuple[int, Size]] | None:
    """Of indices of shape (n, 1)."""
    if len(known.runs) != 1 or len(known.shape) != 2 or known.shape[1] != 1:
        return None
    (run,) = known.runs
    return [(run.start, known.shape[0])] if run.axis == 0 else None


def _dense_ranges(indices: NDArray[np.int64]) -> list[tuple[int, Size]] | None:
    grid = indices.shape[:-1]
    if not indices.size or indices.shape[-1] != len(grid):
        return None
    starts = indices[(0,) * len(grid)]
    if not np.array_equal(indices, np.moveaxis(np.indices(grid), 0, -1) + starts):
        return None
    return list(zip(starts.tolist(), grid, strict=True))


def _ranges_elements(
    node: ir.Node, facts: Facts, sizes: Sequence[Size]
) -> list[tuple[int, Size]] | None:
    """All other axes are written from 0."""
    axis = number(node, "axis", 0) % len(sizes)
    span = _span(facts, node.inputs[1], axis)
    if span is None or len(span[1]) != len(sizes):
        return None
    return [(span[0] if i == axis else 0, size) for i, size in enumerate(span[1])]


def _span(facts: Facts, value: ir.Value | None, axis: int) -> tuple[int, tuple[Size, ...]] | None:
    """Where indices that count along `axis`, and are the same along all others, start.

    And their shape.
    """
    indices = facts.integers(value)
    if indices is not None:
        if not indices.size or axis >= indices.ndim:
            return None
        start = int(indices.flat[0])
        counts = np.array_equal(indices, np.indices(indices.shape)[axis] + start)
        return (start, indices.shape) if counts else None
    known = facts.of(value)
    if known is None or len(known.runs) != 1 or known.stacked or axis >= len(known.shape):
        return None
    (run,) = known.runs
    if run.axis != axis and (run.axis is not None or known.shape[axis] != 1):
        return None
    return run.start, known.shape


_PADDED = (ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16)


def settle_writes(graph: ir.Graph, facts: Facts) -> bool:
    """Of every ScatterND or ScatterElements that writes a box; whether there were any."""
    changed = False
    for node in graph:
        if node.op_type not in ("ScatterND", "ScatterElements") or node.domain != "":
            continue
        box = box_of(node, facts) if len(node.inputs) == 3 and all(node.inputs) else None
        if box is not None:
            _settle(node, box, facts)
            changed = True
    return changed


def _settle(node: ir.Node, box: Sequence[Side], facts: Facts) -> None:
    data, _, updates = node.inputs
    assert data is not None and updates is not None
    if not box:
        stand_in(node, updates)
        return
    perm = _perm(data, updates, node.outputs[0])
    insertion = Insertion(node, node.outputs[0] if node.outputs[0].type else data)
    if perm is None:
        insertion.replace(_written(insertion, data, updates, box, facts.sizes(data) or ()))
        return
    back = [perm.index(axis) for axis in range(len(perm))]
    turned = [Side(perm[s.axis], s.start, s.end, s.size) for s in box]
    data = _transposed(insertion, data, back, facts)
    updates = _transposed(insertion, updates, back, facts)
    sizes = facts.sizes(node.inputs[0]) or ()
    before = [sizes[axis] for axis in back]
    result = _written(insertion, data, updates, turned, before)
    insertion.replace(insertion.add("Transpose", [result], sizes, {"perm": perm}))


def _perm(data: ir.Value, updates: ir.Value, result: ir.Value) -> list[int] | None:
    """The transposition that brought the axis written to the front, if most of it cancels."""
    perm = _turn(data) or _turn(updates)
    if perm is None:
        return None
    gone = [constant_of(value) is not None or _turn(value) == perm for value in (data, updates)]
    readers = [use.node for use in result.uses()]
    gone.append(all(_undoes(reader, perm) for reader in readers) and not result.is_graph_output())
    return perm if sum(gone) > 1 else None


def _turn(value: ir.Value) -> list[int] | None:
    made = source_of(value, "Transpose")
    return perm_of(made) if made is not None else None


def _undoes(reader: ir.Node, perm: Sequence[int]) -> bool:
    back = perm_of(reader) if reader.op_type == "Transpose" and reader.domain == "" else None
    return back is not None and [perm[axis] for axis in back] == list(range(len(perm)))


def _transposed(
    insertion: Insertion, value: ir.Value, perm: Sequence[int], facts: Facts
) -> ir.Value:
    array = constant_of(value)
    if array is not None:
        return constant(insertion.graph, f"{value.name}_turned", array.transpose(perm))
    sizes = facts.sizes(value)
    turned = None if sizes is None else [sizes[axis] for axis in perm]
    return insertion.add("Transpose", [value], turned, {"perm": perm})


def _written(
    insertion: Insertion,
    data: ir.Value,
    updates: ir.Value,
    box: Sequence[Side],
    sizes: Sequence[Size],
) -> ir.Value:
    """`data`, of shape `sizes`, with `updates` in its `box`."""
    if not _is_zero(data):
        return _concatenated(insertion, data, updates, box, sizes)
    begin, end = [0] * len(sizes), [0] * len(sizes)
    for side in box:
        begin[side.axis], end[side.axis] = side.start, side.size - side.end
    pads = insertion.integers("pads", [*begin, *end])
    return insertion.add("Pad", [updates, pads], sizes)


def _concatenated(
    insertion: Insertion,
    data: ir.Value,
    updates: ir.Value,
    box: Sequence[Side],
    sizes: Sequence[Size],
) -> ir.Value:
    side, rest = box[0], box[1:]
    middle, inner = updates, resized(sizes, side.axis, side.end - side.start)
    if rest:
        part = insertion.slice(data, sizes, side.axis, side.start, side.end)
        middle = _concatenated(insertion, part, updates, rest, inner)
    parts = [middle]
    if side.start:
        parts.insert(0, insertion.slice(data, sizes, side.axis, 0, side.start))
    if side.end < side.size:
        parts.append(insertion.slice(data, sizes, side.axis, side.end, side.size))
    if not rest and _is_zero(updates):
        parts = _with_rim(insertion, parts, side, sizes)
        if len(parts) == 1:
            return parts[0]
    return insertion.add("Concat", parts, sizes, {"axis": side.axis})


def _with_rim(
    insertion: Insertion, parts: Sequence[ir.Value], side: Side, sizes: Sequence[Size]
) -> list[ir.Value]:
    """`parts` with the zeros at `side` as a Pad of the part next to them."""
    behind, rank, count = side.end < side.size, len(sizes), side.end - side.start
    at = side.axis if behind else side.axis + rank
    pads = insertion.integers("pads", [count if i == at else 0 for i in range(2 * rank)])
    size = side.size - side.start if behind else side.size
    inputs = [parts[-1] if behind else parts[0], pads]
    return [*parts[:-2], insertion.add("Pad", inputs, resized(sizes, side.axis, size))]


def _is_zero(value: ir.Value) -> bool:
    """Whether every element is +0.0."""
    if value.dtype not in _PADDED and value.dtype is not None:
        return False
    array = constant_of(value)
    if array is not None:
        return array.dtype.kind == "f" and not array.any() and not np.signbit(array).any()
    made = value.producer()
    if made is None or made.domain != "" or not made.inputs:
        return False
    if made.op_type == "ConstantOfShape":
        fill = made.attributes["value"].as_tensor().numpy() if made.attributes else np.float32(0)
        return fill.dtype.kind == "f" and not fill.any() and not np.signbit(fill).any()
    if made.op_type not in (
        "Expand",
        "Identity",
        "Reshape",
        "Slice",
        "Squeeze",
        "Transpose",
        "Unsqueeze",
    ):
        return False
    return made.inputs[0] is not None and _is_zero(made.inputs[0])
