"""The range of an output, where the operators that compute it bound it, such as 0 to 1.

A Sigmoid is computed with errors of the size of one rounding of 1, also where its values are tiny:
ONNX Runtime's has steps of 2^-25 near 0. So a bounded output is judged on the scale of its range.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from flatfold.proof.interpreter.operators import SAME_RANGE, traits_of
from flatfold.proof.network.inputs import limits_of

Range = tuple[float, float]

WIDEST = 256.0  # such as an 8-bit picture's; a Clip to more is there against overflow
DEEPEST = 64  # operators that are looked through

UNIT: dict[str, Range] = {
    **dict.fromkeys(("HardSigmoid", "Sigmoid", "Softmax"), (0.0, 1.0)),
    **dict.fromkeys(("Cos", "Erf", "Sin", "Softsign", "Tanh"), (-1.0, 1.0)),
}
_KEEPING = """
DepthToSpace Dropout Expand GatherElements GatherND GlobalMaxPool ReduceMax ReduceMin Resize
SpaceToDepth Tile TopK
"""
KEEPING = frozenset(_KEEPING.split())
JOINING = frozenset(("Concat", "Max", "Min"))


def output_scale(value: ir.Value) -> float | None:
    """The size of the range of `value`; None where it is not bounded, or wider than WIDEST."""
    ends = range_of(value, {})
    if ends is None or not 0 < ends[1] - ends[0] <= WIDEST:
        return None
    return max(ends[1] - ends[0], abs(ends[0]), abs(ends[1]))


def range_of(
    value: ir.Value | None, known: dict[ir.Value, Range | None], depth: int = 0
) -> Range | None:
    """The numbers between which `value` lies whatever the inputs are, if that is known.

    `known` holds the ranges found so far.
    """
    if value is None or depth > DEEPEST:
        return None
    if value not in known:
        known[value] = None
        known[value] = _computed_range(value, lambda v: range_of(v, known, depth + 1))
    return known[value]


def _computed_range(
    value: ir.Value, range_at: Callable[[ir.Value | None], Range | None]
) -> Range | None:
    """The range of `value`, given those of what it is computed from."""
    tensor = ir.convenience.get_const_tensor(value)
    if tensor is not None and not value.is_graph_input():
        return _range_of_constant(tensor)
    node = value.producer()
    if node is None or node.domain not in ("", "ai.onnx"):
        return None
    if node.op_type == "Split":
        return range_at(node.inputs[0])
    if value.index() != 0:
        return None
    if node.op_type in UNIT:
        return UNIT[node.op_type]
    if node.op_type == "Clip":
        ends = limits_of(node)
        return ends if all(map(math.isfinite, ends)) else None
    if node.op_type in (*JOINING, "Where"):
        return _hull([range_at(v) for v in node.inputs[node.op_type == "Where" :]])
    if node.op_type in ("Add", "Sub", "Mul"):
        return _combined(node.op_type, [range_at(v) for v in node.inputs])
    if node.op_type in KEEPING or traits_of(node).output_range is SAME_RANGE:
        return range_at(node.inputs[0])
    return None


def bounding_nodes(value: ir.Value | None) -> list[ir.Node]:
    """The operators that bound `value`, of which `range_of` knows the range."""
    found: list[ir.Node] = []
    seen: set[ir.Value] = set()
    pending = [value]
    while pending:
        value = pending.pop()
        node = value.producer() if value is not None else None
        if value is None or node is None or value in seen:
            continue
        seen.add(value)
        if node.op_type in UNIT or node.op_type == "Clip":
            found.append(node)
        else:
            pending.extend(node.inputs)
    return found


def _range_of_constant(tensor: ir.TensorProtocol) -> Range | None:
    array = tensor.numpy()
    if array.size == 0 or array.dtype.kind not in "fiu" or not np.all(np.isfinite(array)):
        return None
    return float(array.min()), float(array.max())


def _hull(ranges: Sequence[Range | None]) -> Range | None:
    known = [ends for ends in ranges if ends is not None]
    if len(known) < len(ranges) or not known:
        return None
    return min(low for low, _ in known), max(high for _, high in known)


def _combined(kind: str, ranges: Sequence[Range | None]) -> Range | None:
    if len(ranges) != 2 or ranges[0] is None or ranges[1] is None:
        return None
    (a, b), (c, d) = ranges[0], ranges[1]
    if kind == "Add":
        return a + c, b + d
    if kind == "Sub":
        return a - d, b - c
    ends = [x * y for x in (a, b) for y in (c, d)]
    return min(ends), max(ends)
