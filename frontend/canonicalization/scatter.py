"""ScatterND and ScatterElements that write a box, as Slice, Concat and Pad.

A box is a range along each axis. With data x, updates u and the range [a, b) of one axis,

    y = Concat(x[:a], u, x[b:])

and of several axes the same inside the range of the first one. Where u or x is all zeros, the
zeros are a Pad.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from flatfold.frontend.canonicalization.edit import (
    Insertion,
    add_constant,
    int_attribute,
    perm_of,
    replace_with_identity,
    resized,
)
from flatfold.frontend.canonicalization.symbolic_dims import KnownTensor, Shapes, Size, constant_of

_FLOATS = (ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16)
_MOVE_ELEMENTS = ("Expand", "Identity", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze")


@dataclass(frozen=True)
class AxisRange:
    """Positions `start` to `end` along `axis`, which has `size` positions."""

    axis: int
    start: int
    end: int
    size: int


def canonicalize_scatters(graph: ir.Graph, shapes: Shapes) -> bool:
    """Replace each ScatterND and ScatterElements that writes a box; return whether any was."""
    changed = False
    for node in graph:
        if node.op_type not in ("ScatterND", "ScatterElements") or node.domain != "":
            continue
        box = box_of(node, shapes) if len(node.inputs) == 3 and all(node.inputs) else None
        if box is not None:
            _replace(node, box, shapes)
            changed = True
    return changed


def box_of(node: ir.Node, shapes: Shapes) -> tuple[AxisRange, ...] | None:
    """The ranges that `node` writes, without the axes written whole; None if it writes no box.

    Each index of a box is written once, by the update at the same position in the box, so that
    the updates have the shape of the box.
    """
    sizes = shapes.sizes(node.inputs[0])
    if sizes is None or ("reduction" in node.attributes and _reduction(node) != "none"):
        return None
    ranges = _ranges_nd(node, shapes) if node.op_type == "ScatterND" else None
    if node.op_type == "ScatterElements":
        ranges = _ranges_elements(node, shapes, sizes)
    if ranges is None or len(ranges) > len(sizes):
        return None
    box = [_axis_range(i, *span, sizes[i]) for i, span in enumerate(ranges)]
    if any(part is None for part in box):
        return None
    return tuple(part for part in box if part is not None and part.start < part.end)


def _reduction(node: ir.Node) -> str:
    return node.attributes["reduction"].as_string()


def _axis_range(axis: int, start: int, count: Size, size: Size) -> AxisRange | None:
    """The range written along one axis; an empty one if the axis is written whole."""
    whole = AxisRange(axis, 0, 0, 0)
    if start == 0 and count is not None and count == size:
        return whole
    if not isinstance(count, int) or not isinstance(size, int) or count < 1:
        return None
    first = start + size if start < 0 else start
    if not 0 <= first <= size - count:
        return None
    return whole if count == size else AxisRange(axis, first, first + count, size)


def _ranges_nd(node: ir.Node, shapes: Shapes) -> list[tuple[int, Size]] | None:
    """Start and length of what a ScatterND writes, along the first axes of the data."""
    indices = shapes.integers(node.inputs[1])
    if indices is not None:
        return _dense_ranges(indices)
    known = shapes.tensor(node.inputs[1])
    if known is None:
        return None
    aranges, grid = known.aranges, known.shape[:-1]
    if not known.stacked:
        return _single_range(known)
    if len(aranges) != len(grid):
        return None
    for axis, arange in enumerate(aranges):
        if arange.axis != axis and (arange.axis is not None or grid[axis] != 1):
            return None
    return [(arange.start, size) for arange, size in zip(aranges, grid, strict=True)]


def _single_range(known: KnownTensor) -> list[tuple[int, Size]] | None:
    """As `_ranges_nd`, of indices of shape (n, 1)."""
    if len(known.aranges) != 1 or len(known.shape) != 2 or known.shape[1] != 1:
        return None
    (arange,) = known.aranges
    return [(arange.start, known.shape[0])] if arange.axis == 0 else None


def _dense_ranges(indices: NDArray[np.int64]) -> list[tuple[int, Size]] | None:
    """As `_ranges_nd`, of constant indices."""
    grid = indices.shape[:-1]
    if not indices.size or indices.shape[-1] != len(grid):
        return None
    starts = indices[(0,) * len(grid)]
    if not np.array_equal(indices, np.moveaxis(np.indices(grid), 0, -1) + starts):
        return None
    return list(zip(starts.tolist(), grid, strict=True))


def _ranges_elements(
    node: ir.Node, shapes: Shapes, sizes: Sequence[Size]
) -> list[tuple[int, Size]] | None:
    """Start and length of what a ScatterElements writes: from 0 along all axes but its own."""
    axis = int_attribute(node, "axis", 0) % len(sizes)
    span = _span(shapes, node.inputs[1], axis)
    if span is None or len(span[1]) != len(sizes):
        return None
    return [(span[0] if i == axis else 0, size) for i, size in enumerate(span[1])]


def _span(shapes: Shapes, value: ir.Value | None, axis: int) -> tuple[int, tuple[Size, ...]] | None:
    """First element and shape of indices that count up along `axis` and repeat along all others."""
    indices = shapes.integers(value)
    if indices is not None:
        if not indices.size or axis >= indices.ndim:
            return None
        start = int(indices.flat[0])
        counts = np.array_equal(indices, np.indices(indices.shape)[axis] + start)
        return (start, indices.shape) if counts else None
    known = shapes.tensor(value)
    if known is None or len(known.aranges) != 1 or known.stacked or axis >= len(known.shape):
        return None
    (arange,) = known.aranges
    if arange.axis != axis and (arange.axis is not None or known.shape[axis] != 1):
        return None
    return arange.start, known.shape


def _replace(node: ir.Node, box: Sequence[AxisRange], shapes: Shapes) -> None:
    data, _, updates = node.inputs
    assert data is not None and updates is not None
    if not box:
        replace_with_identity(node, updates)
        return
    perm = _outer_perm(data, updates, node.outputs[0])
    insertion = Insertion(node, node.outputs[0] if node.outputs[0].type else data)
    if perm is None:
        insertion.replace(_write_box(insertion, data, updates, box, shapes.sizes(data) or ()))
        return
    inverse = [perm.index(axis) for axis in range(len(perm))]
    permuted = [AxisRange(perm[part.axis], part.start, part.end, part.size) for part in box]
    data = _transposed(insertion, data, inverse, shapes)
    updates = _transposed(insertion, updates, inverse, shapes)
    sizes = shapes.sizes(node.inputs[0]) or ()
    before = [sizes[axis] for axis in inverse]
    result = _write_box(insertion, data, updates, permuted, before)
    insertion.replace(insertion.add("Transpose", [result], sizes, {"perm": perm}))


def _outer_perm(data: ir.Value, updates: ir.Value, result: ir.Value) -> list[int] | None:
    """The Transpose around the write, if two of its three copies cancel when the write moves out.

    Exporters bring the written axis to the front of data and updates and transpose back behind.
    """
    perm = _perm_before(data) or _perm_before(updates)
    if perm is None:
        return None
    cancelled = [
        constant_of(value) is not None or _perm_before(value) == perm for value in (data, updates)
    ]
    readers = [use.node for use in result.uses()]
    undone = all(_undoes(reader, perm) for reader in readers)
    cancelled.append(undone and not result.is_graph_output())
    return perm if sum(cancelled) > 1 else None


def _perm_before(value: ir.Value) -> list[int] | None:
    """The permutation by all Transposes in front of `value` together; None if there is none."""
    whole: list[int] | None = None
    while (node := value.producer()) is not None and node.domain == "" and node.inputs[0]:
        if node.op_type not in ("Identity", "Transpose"):
            break
        if node.op_type == "Transpose":
            perm = perm_of(node)
            if perm is None or sorted(perm) != list(range(len(perm))):
                break
            if whole is not None and len(whole) != len(perm):
                break
            whole = perm if whole is None else [perm[axis] for axis in whole]
        value = node.inputs[0]
    return whole


def _undoes(reader: ir.Node, perm: Sequence[int]) -> bool:
    inverse = perm_of(reader) if reader.op_type == "Transpose" and reader.domain == "" else None
    return inverse is not None and [perm[axis] for axis in inverse] == list(range(len(perm)))


def _transposed(
    insertion: Insertion, value: ir.Value, perm: Sequence[int], shapes: Shapes
) -> ir.Value:
    array = constant_of(value)
    if array is not None:
        return add_constant(insertion.graph, f"{value.name}_turned", array.transpose(perm))
    sizes = shapes.sizes(value)
    permuted = None if sizes is None else [sizes[axis] for axis in perm]
    return insertion.add("Transpose", [value], permuted, {"perm": perm})


def _write_box(
    insertion: Insertion,
    data: ir.Value,
    updates: ir.Value,
    box: Sequence[AxisRange],
    sizes: Sequence[Size],
) -> ir.Value:
    """`data`, of shape `sizes`, with `updates` in the place of its `box`."""
    if not _is_zero(data):
        return _concatenated(insertion, data, updates, box, sizes)
    begin, end = [0] * len(sizes), [0] * len(sizes)
    for part in box:
        begin[part.axis], end[part.axis] = part.start, part.size - part.end
    pads = insertion.integers("pads", [*begin, *end])
    return insertion.add("Pad", [updates, pads], sizes)


def _concatenated(
    insertion: Insertion,
    data: ir.Value,
    updates: ir.Value,
    box: Sequence[AxisRange],
    sizes: Sequence[Size],
) -> ir.Value:
    """As `_write_box`, by a Concat along the first axis of the box."""
    outer, rest = box[0], box[1:]
    middle, inner = updates, resized(sizes, outer.axis, outer.end - outer.start)
    if rest:
        part = insertion.slice(data, sizes, outer.axis, outer.start, outer.end)
        middle = _concatenated(insertion, part, updates, rest, inner)
    parts = [middle]
    if outer.start:
        parts.insert(0, insertion.slice(data, sizes, outer.axis, 0, outer.start))
    if outer.end < outer.size:
        parts.append(insertion.slice(data, sizes, outer.axis, outer.end, outer.size))
    if not rest and _is_zero(updates):
        parts = _with_pad(insertion, parts, outer, sizes)
        if len(parts) == 1:
            return parts[0]
    return insertion.add("Concat", parts, sizes, {"axis": outer.axis})


def _with_pad(
    insertion: Insertion, parts: Sequence[ir.Value], zeros: AxisRange, sizes: Sequence[Size]
) -> list[ir.Value]:
    """`parts` with the part of `zeros` replaced by a Pad of the part next to it."""
    at_start, rank, count = zeros.end < zeros.size, len(sizes), zeros.end - zeros.start
    pad_index = zeros.axis if at_start else zeros.axis + rank
    pads = insertion.integers("pads", [count if i == pad_index else 0 for i in range(2 * rank)])
    size = zeros.size - zeros.start if at_start else zeros.size
    inputs = [parts[-1] if at_start else parts[0], pads]
    return [*parts[:-2], insertion.add("Pad", inputs, resized(sizes, zeros.axis, size))]


def _is_zero(value: ir.Value) -> bool:
    """Whether every element is +0.0."""
    if value.dtype not in _FLOATS and value.dtype is not None:
        return False
    array = constant_of(value)
    if array is not None:
        return array.dtype.kind == "f" and not array.any() and not np.signbit(array).any()
    producer = value.producer()
    if producer is None or producer.domain != "" or not producer.inputs:
        return False
    if producer.op_type == "ConstantOfShape":
        if not producer.attributes:
            return True
        fill = producer.attributes["value"].as_tensor().numpy()
        return fill.dtype.kind == "f" and not fill.any() and not np.signbit(fill).any()
    if producer.op_type not in _MOVE_ELEMENTS:
        return False
    return producer.inputs[0] is not None and _is_zero(producer.inputs[0])
