"""Two operators of one kind, one behind the other, as one.

    Transpose(Transpose(x, p), q) = Transpose(x, p[q])
    Reshape(Reshape(x))           = Reshape(x); also behind Flatten, Squeeze and Unsqueeze
    Cast(Cast(x))                 = Cast(x) where the first one loses nothing
    Slice(Slice(x))               = Slice(x) where they cut different axes

The first one goes once nothing else reads it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from flatfold.frontend.canonicalization.edit import (
    add_constant,
    int_attribute,
    perm_of,
    producer_of,
)
from flatfold.frontend.canonicalization.symbolic_dims import Shapes, constant_of

VIEWS = ("Flatten", "Reshape", "Squeeze", "Unsqueeze")

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


def _reshape(node: ir.Node, shapes: Shapes) -> bool:
    first = next(filter(None, (producer_of(node.inputs[0], kind) for kind in VIEWS)), None)
    target = constant_of(node.inputs[1]) if len(node.inputs) > 1 else None
    if first is None or first.inputs[0] is None or target is None or np.any(target == 0):
        return False  # 0 stands for a size of what it reads, or for no elements
    node.replace_input_with(0, first.inputs[0])
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
    if first is None or len(first.outputs[0].uses()) != 1 or first.outputs[0].is_graph_output():
        return False
    ranges = [_ranges(part, shapes) for part in (first, node)]
    if ranges[0] is None or ranges[1] is None or set(ranges[0]) & set(ranges[1]):
        return False
    assert node.graph is not None
    assert isinstance(node.graph, ir.Graph)
    whole = ranges[0] | ranges[1]
    columns = zip(*((*numbers, axis) for axis, numbers in sorted(whole.items())), strict=True)
    starts, ends, steps, axes = (np.array(column, np.int64) for column in columns)
    name = node.outputs[0].name or node.op_type
    named = [("starts", starts), ("ends", ends), ("axes", axes), ("steps", steps)]
    inputs = [add_constant(node.graph, f"{name}_{role}", array) for role, array in named]
    merged = ir.node("Slice", [first.inputs[0], *inputs], name=node.name)
    merged.outputs[0].type, merged.outputs[0].shape = node.outputs[0].type, node.outputs[0].shape
    ir.convenience.replace_nodes_and_values(
        node.graph, node, [node], [merged], node.outputs, merged.outputs
    )
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


_RULES: dict[str, Callable[[ir.Node, Shapes], bool]] = {
    "Cast": _cast,
    "Reshape": _reshape,
    "Slice": _slice,
    "Transpose": _transpose,
}
