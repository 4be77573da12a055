"""Operators spelled out in the nodes by which ONNX Runtime finds them and makes one kernel of each.

For opsets that lack the operator. ONNX Runtime takes one of a few spellings: a Gelu by Div, not by
Mul, with a half that multiplies x or the result; a norm by Pow, Sqrt and Div.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from flatfold.passes.decline import Decline
from flatfold.passes.lowering.draft import Draft
from flatfold.passes.lowering.replacement import Names, Replacement
from flatfold.passes.reading.activations import CUBIC, HARD_SIGMOID, SLOPE
from flatfold.passes.reading.composites import COMPOSITE_KEY, Composite
from flatfold.passes.reading.node import constant

Spelling = Callable[[Draft, Composite], ir.Value]


def spell(composite: Composite, names: Names) -> Replacement:
    """The composite in the best of its spellings. Raises Decline if it is in one, or has none."""
    spellings = _spellings_of(composite)
    for spelling in spellings:
        draft = Draft(composite.output, Names(set(), names.opset))
        same = is_spelled(composite.output, spelling(draft, composite))
        draft.replacement(composite.output).discard()
        if same:
            raise Decline("NONLINEAR", "it is spelled in the way in which engines find it")
    if not spellings:
        raise Decline("NONLINEAR", f"the opset has no {composite.op_type}")
    draft = Draft(composite.output, names)
    replacement = draft.replacement(spellings[0](draft, composite))
    for node in replacement.nodes:
        node.meta[COMPOSITE_KEY] = composite.op_type
    return replacement


def _spellings_of(composite: Composite) -> Sequence[Spelling]:
    """The ways to write it, the best one first; none where engines do not find it."""
    kind = composite.op_type
    if kind == "Gelu":
        by_tanh = composite.attributes.get("approximate") == "tanh"
        return (_gelu_by_tanh,) if by_tanh else (_half_of_x, _half_last)
    if kind in NORMS:
        return (NORMS[kind],) if composite.found else ()
    return (GATED[kind],) if kind in GATED else ()


def is_spelled(value: ir.Value | None, draft: ir.Value | None) -> bool:
    """Whether two values are computed by the same operators, whatever order sums have."""
    if value is draft:
        return True
    one, two = constant(value), constant(draft)
    if one is not None or two is not None:
        return one is not None and two is not None and _is_close(one, two)
    a, b = (v.producer() if v is not None else None for v in (value, draft))
    if a is None or b is None or a.op_identifier() != b.op_identifier():
        return False
    if len(a.inputs) != len(b.inputs):
        return False
    orders = [list(b.inputs)]
    if a.op_type in ("Add", "Mul"):
        orders.append(list(reversed(b.inputs)))
    return any(all(map(is_spelled, a.inputs, order)) for order in orders)


def _is_close(one: np.ndarray, two: np.ndarray) -> bool:
    """Whether two constants are the same up to rounding; axes may be counted from either end."""
    if one.size != two.size or one.dtype.kind in "iu":
        return one.size == two.size
    return bool(np.allclose(one.reshape(-1), two.reshape(-1), rtol=1e-3, atol=0))


def _by_erf(draft: Draft, x: ir.Value) -> ir.Value:
    """1 + erf(x / sqrt(2))."""
    curve = draft.op("Erf", draft.op("Div", x, draft.constant(math.sqrt(2), "root")))
    return draft.op("Add", curve, draft.constant(1.0, "one"))


def _half_of_x(draft: Draft, composite: Composite) -> ir.Value:
    x = composite.data
    half = draft.op("Mul", x, draft.constant(0.5, "half"))
    return draft.op("Mul", half, _by_erf(draft, x))


def _half_last(draft: Draft, composite: Composite) -> ir.Value:
    x = composite.data
    return draft.op("Mul", draft.op("Mul", x, _by_erf(draft, x)), draft.constant(0.5, "half"))


def _gelu_by_tanh(draft: Draft, composite: Composite) -> ir.Value:
    x = composite.data
    cube = draft.op("Pow", x, draft.constant(3.0, "three"))
    sum_ = draft.op("Add", x, draft.op("Mul", cube, draft.constant(CUBIC, "cubic")))
    curve = draft.op("Tanh", draft.op("Mul", sum_, draft.constant(SLOPE, "slope")))
    raised = draft.op("Add", curve, draft.constant(1.0, "one"))
    return draft.op("Mul", draft.op("Mul", x, draft.constant(0.5, "half")), raised)


def _swish(draft: Draft, composite: Composite) -> ir.Value:
    x, alpha = composite.data, float(composite.attributes["alpha"])
    inner = x if alpha == 1 else draft.op("Mul", x, draft.constant(alpha, "alpha"))
    return draft.op("Mul", x, draft.op("Sigmoid", inner))


def _hard_swish(draft: Draft, composite: Composite) -> ir.Value:
    x = composite.data
    return draft.op("Mul", x, draft.op("HardSigmoid", x, attributes=HARD_SIGMOID))


def _scaled(draft: Draft, x: ir.Value, composite: Composite) -> ir.Value:
    """x / sqrt(mean(x^2) + epsilon) * scale."""
    opset, epsilon = draft.names.opset, float(composite.attributes["epsilon"])
    square = draft.mean(draft.op("Pow", x, draft.constant(2.0, "two")), opset)
    spread = draft.op("Sqrt", draft.op("Add", square, draft.constant(epsilon, "epsilon")))
    assert composite.scale is not None
    return draft.op("Mul", draft.op("Div", x, spread), composite.scale)


def _layer_norm(draft: Draft, composite: Composite) -> ir.Value:
    mean = draft.mean(composite.data, draft.names.opset)
    assert composite.bias is not None
    scaled = _scaled(draft, draft.op("Sub", composite.data, mean), composite)
    return draft.op("Add", scaled, composite.bias)


GATED: Mapping[str, Spelling] = {"HardSwish": _hard_swish, "Swish": _swish}
NORMS: Mapping[str, Spelling] = {
    "LayerNormalization": _layer_norm,
    "RMSNormalization": lambda draft, composite: _scaled(draft, composite.data, composite),
}
