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
    Insertion,
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


_RULES: dict[str, Callable[[ir.Node, Shapes], bool]] = {
    "Cast": _cast,
    "Reshape": _reshape,
    "Slice": _slice,
    "Transpose": _transpose,
}
