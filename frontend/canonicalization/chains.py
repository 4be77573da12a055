"""Two operators of one kind, one behind the other, as one.

    Transpose(Transpose(x, p), q) = Transpose(x, p[q])
    Cast(Cast(x))                 = Cast(x) where the first one loses nothing
    Slice(Slice(x))               = Slice(x) where they cut different axes
    Concat(Concat(x, y), z)       = Concat(x, y, z) along one axis
    Unsqueeze(Gather(x, i))       = Gather(x, [i])
    Unsqueeze(Gather(x, i) * 2)   = Unsqueeze(Gather(x, i)) * 2, so that the line above applies

The first one goes once nothing else reads it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from flatfold.frontend.canonicalization.edit import (
    Insertion,
    axes_of,
    int_attribute,
    perm_of,
    producer_of,
)
from flatfold.frontend.canonicalization.symbolic_dims import Shapes, Size, constant_of

_WIDER = {
    ir.DataType.FLOAT16: (ir.DataType.FLOAT, ir.DataType.DOUBLE),
    ir.DataType.BFLOAT16: (ir.DataType.FLOAT, ir.DataType.DOUBLE),
    ir.DataType.FLOAT: (ir.DataType.DOUBLE,),
    ir.DataType.INT32: (ir.DataType.INT64,),
    ir.DataType.INT16: (ir.DataType.INT32, ir.DataType.INT64, ir.DataType.FLOAT),
    ir.DataType.INT8: (ir.DataType.INT32, ir.DataType.INT64, ir.DataType.FLOAT),
    ir.DataType.UINT8: (ir.DataType.INT32, ir.DataType.INT64, ir.DataType.FLOAT),
    ir.DataType.BOOL: (ir.DataType.INT32, ir.DataType.INT64, ir.DataType.FLOAT),
}
"""Types that hold every number of a type."""

_MOST_SIZES = 16  # in a list of them: more than a tensor has axes
_ARITHMETIC = ("Add", "Div", "Mul", "Sub")

_FLOATS = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.FLOAT, ir.DataType.DOUBLE)


def canonicalize_chains(graph: ir.Graph, shapes: Shapes) -> bool:
    """Let the second of two such operators read what the first one reads; whether any did."""
    changed = False
    for node in graph:
        rule = _RULES.get(node.op_type) if node.domain == "" else None
        if rule is not None and len(node.outputs) == 1 and node.inputs and node.inputs[0]:
            changed |= rule(node, shapes)
    return changed


def _transpose(node: ir.Node, shapes: Shapes) -> bool:
    first, perm = producer_of(node.inputs[0], "Transpose"), perm_of(node)
    before = None if first is None else perm_of(first)
    if first is None or perm is None or before is None or sorted(before) != sorted(perm):
        return False
    if sorted(perm) != list(range(len(perm))):
        return False
    node.replace_input_with(0, first.inputs[0])
    node.attributes["perm"] = ir.AttrInt64s("perm", [before[axis] for axis in perm])
    return True


def _cast(node: ir.Node, shapes: Shapes) -> bool:
    first = producer_of(node.inputs[0], "Cast")
    if first is None or first.inputs[0] is None:
        return False
    source, between = first.inputs[0].dtype, int_attribute(first, "to", 0)
    wanted = int_attribute(node, "to", 0)
    if source is None or between not in _WIDER.get(source, ()):
        return False
    if wanted not in (*_FLOATS, source):
        return False  # of a number that does not fit, each conversion to integers makes its own
    node.replace_input_with(0, first.inputs[0])
    return True


def _slice(node: ir.Node, shapes: Shapes) -> bool:
    first = producer_of(node.inputs[0], "Slice")
    data = None if first is None else first.inputs[0]
    if first is None or data is None or first.outputs[0].is_graph_output():
        return False
    one, two = _ranges(first, shapes), _ranges(node, shapes)
    alone = len(first.outputs[0].uses()) == 1
    if not alone or one is None or two is None or set(one) & set(two):
        return False
    rows = [(start, end, axis, step) for axis, (start, end, step) in sorted((one | two).items())]
    starts, ends, axes, steps = zip(*rows, strict=True)
    insertion = Insertion(node, node.outputs[0])
    named = [("starts", starts), ("ends", ends), ("axes", axes), ("steps", steps)]
    inputs = [insertion.integers(role, numbers) for role, numbers in named]
    sizes = shapes.sizes(node.outputs[0])
    insertion.replace(insertion.add("Slice", [data, *inputs], sizes))
    return True


def _ranges(node: ir.Node, shapes: Shapes) -> dict[int, tuple[int, int, int]] | None:
    """(start, end, step) by axis; None if they are not constant, or an attribute."""
    sizes = shapes.sizes(node.inputs[0])
    given = [constant_of(value) for value in node.inputs[1:]]
    if not sizes or len(given) < 3 or any(array is None for array in given):
        return None
    columns = [np.reshape(array, -1).tolist() for array in given if array is not None]
    starts, ends, axes = columns[:3]
    steps = columns[3] if len(columns) > 3 else [1] * len(starts)
    if len({len(starts), len(ends), len(axes), len(steps)}) != 1:
        return None
    ranges = zip(starts, ends, steps, strict=True)
    return dict(zip((axis % len(sizes) for axis in axes), ranges, strict=True))


def _concat(node: ir.Node, shapes: Shapes) -> bool:
    """Join what the Concats join that only `node` reads, or only Concats if it is a list."""
    sizes = shapes.sizes(node.outputs[0])
    rank, parts = len(sizes or ()), list[ir.Value | None]()
    is_short = rank == 1 and sizes is not None and _is_at_most(sizes[0], _MOST_SIZES)
    for value in node.inputs:
        first = producer_of(value, "Concat")
        joined = first is not None and rank and _is_read_by_concats(first, node, is_short)
        if first is not None and joined and _axis(first, rank) == _axis(node, rank):
            parts += first.inputs
        else:
            parts.append(value)
    if len(parts) == len(node.inputs):
        return False
    node.resize_inputs(len(parts))
    for i, part in enumerate(parts):
        node.replace_input_with(i, part)
    return True


def _is_at_most(size: Size, most: int) -> bool:
    return isinstance(size, int) and size <= most


def _is_read_by_concats(first: ir.Node, node: ir.Node, is_short: bool) -> bool:
    """Whether the Concat `first` goes once its readers, `node` among them, join its parts.

    A short list, such as sizes, costs nothing to join anew in each of them.
    """
    value = first.outputs[0]
    if not is_short or value.is_graph_output() or first.graph is not node.graph:
        return _is_read_once(first, node)
    readers = [use.node for use in value.uses()]
    return all(
        (one.op_type, one.domain) == ("Concat", "") and one.graph is node.graph for one in readers
    )


def _axis(concat: ir.Node, rank: int) -> int:
    return int_attribute(concat, "axis", 1) % rank


def _is_read_once(first: ir.Node, reader: ir.Node) -> bool:
    """Whether only `reader`, of the same graph, reads what `first` returns."""
    value = first.outputs[0]
    alone = len(value.uses()) == 1 and not value.is_graph_output()
    return alone and first.graph is reader.graph


def _unsqueeze(node: ir.Node, shapes: Shapes) -> bool:
    """Let a Gather of one position keep the axis that `node` adds again."""
    first, sizes = producer_of(node.inputs[0], "Gather"), shapes.sizes(node.outputs[0])
    if first is None:
        return _unsqueeze_first(node, shapes)
    data, position = first.inputs[0], constant_of(first.inputs[1])
    if sizes is None or data is None or position is None or position.ndim:
        return False
    axis = int_attribute(first, "axis", 0) % len(sizes)
    if not _is_only_unsqueezed(first, axis, len(sizes)):
        return False
    insertion = Insertion(node, node.outputs[0])
    positions = insertion.integers("positions", [int(position)])
    insertion.replace(insertion.add("Gather", [data, positions], sizes, {"axis": axis}))
    return True


def _is_only_unsqueezed(first: ir.Node, axis: int, rank: int) -> bool:
    """Whether all that reads what `first` returns adds an axis, each the same one."""
    value = first.outputs[0]
    return not value.is_graph_output() and all(
        (reader.op_type, reader.domain) == ("Unsqueeze", "")
        and reader.graph is first.graph
        and axes_of(reader, rank) == [axis]
        for reader in (use.node for use in value.uses())
    )


def _unsqueeze_first(node: ir.Node, shapes: Shapes) -> bool:
    """Move `node` in front of the arithmetic of one gathered number and a constant."""
    first = None if node.inputs[0] is None else node.inputs[0].producer()
    if first is None or first.domain != "" or first.op_type not in _ARITHMETIC:
        return False
    scalars = [value for value in first.inputs if value is not None and shapes.sizes(value) == ()]
    numbers = [value for value in scalars if constant_of(value) is None]
    if len(scalars) != 2 or len(numbers) != 1 or not _is_read_once(first, node):
        return False
    if producer_of(numbers[0], "Gather") is None or axes_of(node, 1) != [0]:
        return False
    insertion = Insertion(node, node.outputs[0])
    attributes = {name: attribute.value for name, attribute in node.attributes.items()}
    axes = [value for value in node.inputs[1:] if value is not None]
    listed = insertion.add("Unsqueeze", [numbers[0], *axes], (1,), attributes)
    inputs = [listed if value is numbers[0] else value for value in scalars]
    insertion.replace(insertion.add(first.op_type, inputs, (1,)))
    return True


_RULES: dict[str, Callable[[ir.Node, Shapes], bool]] = {
    "Cast": _cast,
    "Concat": _concat,
    "Slice": _slice,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
