"""Which part of a tensor ScatterND and ScatterElements write, if it is a box."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from flatfold.frontend.shape_rules import number
from flatfold.frontend.shape_values import Facts, Known, Size

__all__ = ["Side", "box_of"]


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
