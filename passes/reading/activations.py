"""Activations that a graph spells out.

    Gelu(x) = x (1 + erf(x / sqrt(2))) / 2,  or with tanh(sqrt(2 / pi) (x + 0.044715 x^3)) for erf
    Swish(x) = x sigmoid(beta x),  HardSwish(x) = x clip(x + 3, 0, 6) / 6
    Mish(x) = x tanh(softplus(x)),  softplus(x) = log(1 + e^x),  sigmoid(x) = 1 / (1 + e^-x)

(Hendrycks & Gimpel 2016, Ramachandran et al. 2017, Howard et al. 2019, Misra 2019.)
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import permutations

import onnx_ir as ir

from flatfold.passes.reading.composites import CLOSE, Composite, deviation_of, whole
from flatfold.passes.reading.node import clip_limits, number
from flatfold.passes.reading.products import (
    Polynomial,
    Product,
    plus_number,
    polynomial_of,
    product_of,
)

CUBIC = 0.044715
SLOPE = math.sqrt(2 / math.pi)
SHIFT, TOP = 3.0, 6.0
HARD_SIGMOID = {"alpha": 1 / TOP, "beta": SHIFT / TOP}


@dataclass
class _Spelling:
    """What of a composite is read in one spelling: pairs are numbers as they are and should be."""

    op_type: str
    data: ir.Value
    nodes: list[ir.Node]
    pairs: list[tuple[float, float]] = field(default_factory=list)
    attributes: dict[str, float | str] = field(default_factory=dict)


def activation_at(node: ir.Node) -> Composite | None:
    """The activation that ends in `node`, if it is spelled out."""
    if node.domain != "":
        return None
    for spelling in _spellings(node):
        deviation = deviation_of(spelling.pairs)
        nodes = whole(node, spelling.nodes, spelling.data) if deviation <= CLOSE else ()
        if nodes:
            return Composite(
                spelling.op_type,
                spelling.data,
                nodes,
                attributes=spelling.attributes,
                deviation=deviation,
            )
    return None


def _spellings(node: ir.Node) -> Iterator[_Spelling]:
    """The candidates whose nodes and numbers fit; that nothing else reads them is not checked."""
    if node.op_type == "Log":
        softplus = _softplus(node.outputs[0])
        if softplus is not None:
            yield _Spelling("Softplus", *softplus)
    if node.op_type not in ("Div", "Mul", "Reciprocal"):
        return
    product = product_of(node.outputs[0])
    gates = [_gelu, _swish, _mish, _hard_swish]
    for data, gate in permutations(product.powers, 2) if len(product.powers) == 2 else ():
        for read in gates if product.powers[data] == 1 else ():
            spelling = read(product, data, gate)
            if spelling is not None:
                yield spelling
    for gate in product.powers if len(product.powers) == 1 else ():
        spelling = _sigmoid(product, gate) or _hard_sigmoid(product, gate)
        if spelling is not None:
            yield spelling


def _gelu(product: Product, data: ir.Value, gate: ir.Value) -> _Spelling | None:
    """x and 1 + erf(x / sqrt(2)), or 1 + tanh(..), times 1/2."""
    raised = plus_number(gate)
    if raised is None or product.powers[gate] != 1:
        return None
    scaled = product_of(raised[0])
    curve = _only_node(scaled, "Erf", "Tanh")
    if curve is None:
        return None
    inner = _erf_operand(curve, data) if curve.op_type == "Erf" else _tanh_operand(curve, data)
    if inner is None:
        return None
    pairs = [(product.number * raised[1], 0.5), (product.number * scaled.number, 0.5), *inner[1]]
    nodes = [*product.nodes, raised[2], *scaled.nodes, curve, *inner[0]]
    attributes = {"approximate": "tanh" if curve.op_type == "Tanh" else "none"}
    return _Spelling("Gelu", data, nodes, pairs, dict(attributes))


Inner = tuple[list[ir.Node], list[tuple[float, float]]]  # nodes; numbers as they are and should be


def _erf_operand(curve: ir.Node, data: ir.Value) -> Inner | None:
    """x / sqrt(2)."""
    argument = _argument(curve, data)
    if argument is None:
        return None
    return argument.nodes, [(argument.number, math.sqrt(0.5))]


def _tanh_operand(curve: ir.Node, data: ir.Value) -> Inner | None:
    """sqrt(2 / pi) (x + 0.044715 x^3), as any polynomial that is the same."""
    nodes: dict[ir.Node, Polynomial | None] = {}
    polynomial = polynomial_of(curve.inputs[0], data, nodes)
    if polynomial is None or set(polynomial) - {0, 2} != {1, 3}:
        return None
    if polynomial.get(0, 0.0) or polynomial.get(2, 0.0) or not polynomial[1]:
        return None
    return list(nodes), [(polynomial[1], SLOPE), (polynomial[3] / polynomial[1], CUBIC)]


def _swish(product: Product, data: ir.Value, gate: ir.Value) -> _Spelling | None:
    """x sigmoid(beta x), or x / (1 + e^(-beta x))."""
    exponent = product.powers[gate]
    named = gate.producer()
    if exponent == 1 and named is not None and named.op_type == "Sigmoid":
        argument, nodes, sign = _argument(named, data), [named], 1.0
    else:
        raised = plus_number(gate) if exponent == -1 else None
        exponential = _produced(raised[0], "Exp") if raised is not None else None
        if raised is None or exponential is None or raised[1] != 1:
            return None
        argument, nodes, sign = _argument(exponential, data), [raised[2], exponential], -1.0
    if argument is None or not math.isfinite(argument.number) or not argument.number:
        return None
    nodes = [*product.nodes, *nodes, *argument.nodes]
    attributes: dict[str, float | str] = {"alpha": sign * argument.number}
    return _Spelling("Swish", data, nodes, [(product.number, 1.0)], attributes)


def _mish(product: Product, data: ir.Value, gate: ir.Value) -> _Spelling | None:
    """x tanh(softplus(x))."""
    curve = _produced(gate, "Tanh")
    if curve is None or product.powers[gate] != 1:
        return None
    named = _produced(curve.inputs[0], "Softplus")
    inner = (named.inputs[0], [named]) if named is not None else _softplus(curve.inputs[0])
    if inner is None or inner[0] is not data:
        return None
    nodes = [*product.nodes, curve, *inner[1]]
    return _Spelling("Mish", data, nodes, [(product.number, 1.0)])


def _softplus(value: ir.Value | None) -> tuple[ir.Value, list[ir.Node]] | None:
    """x of log(1 + e^x), and its nodes."""
    logarithm = _produced(value, "Log")
    raised = plus_number(logarithm.inputs[0]) if logarithm is not None else None
    exponential = _produced(raised[0], "Exp") if raised is not None else None
    if logarithm is None or raised is None or exponential is None or raised[1] != 1:
        return None
    data = exponential.inputs[0]
    return None if data is None else (data, [logarithm, raised[2], exponential])


def _sigmoid(product: Product, gate: ir.Value) -> _Spelling | None:
    """1 / (1 + e^-x)."""
    raised = plus_number(gate) if product.powers[gate] == -1 else None
    exponential = _produced(raised[0], "Exp") if raised is not None else None
    negated = _produced(exponential.inputs[0], "Neg") if exponential is not None else None
    if raised is None or exponential is None or negated is None or negated.inputs[0] is None:
        return None
    nodes = [*product.nodes, raised[2], exponential, negated]
    pairs = [(product.number, 1.0), (raised[1], 1.0)]
    return _Spelling("Sigmoid", negated.inputs[0], nodes, pairs)


def _hard_swish(product: Product, data: ir.Value, gate: ir.Value) -> _Spelling | None:
    """x clip(x + 3, 0, 6) / 6, or x times a HardSigmoid that is written as such."""
    if product.powers[gate] != 1:
        return None
    named = _produced(gate, "HardSigmoid")
    if named is not None:
        alpha, beta = number(named, "alpha", 0.2), number(named, "beta", 0.5)
        pairs = [(alpha, 1 / TOP), (beta, SHIFT / TOP), (product.number, 1.0)]
        nodes = [*product.nodes, named]
        return _Spelling("HardSwish", data, nodes, pairs) if named.inputs[0] is data else None
    clipped = _clipped(gate, data)
    if clipped is None:
        return None
    pairs = [(product.number * n, wanted) for n, wanted in clipped[1]]
    return _Spelling("HardSwish", data, [*product.nodes, *clipped[0]], pairs)


def _hard_sigmoid(product: Product, gate: ir.Value) -> _Spelling | None:
    """clip(x + 3, 0, 6) / 6."""
    clip = _produced(gate, "Clip") if product.powers[gate] == 1 else None
    raised = plus_number(clip.inputs[0]) if clip is not None else None
    clipped = _clipped(gate, raised[0]) if raised is not None else None
    if raised is None or clipped is None:
        return None
    pairs = [(product.number * n, wanted) for n, wanted in clipped[1]]
    return _Spelling("HardSigmoid", raised[0], [*product.nodes, *clipped[0]], pairs)


def _clipped(gate: ir.Value, data: ir.Value) -> Inner | None:
    """The nodes of clip(a x + b, 0, top); a, b and top, times 6 the factor that is left."""
    clip = _produced(gate, "Clip")
    limits = clip_limits(clip) if clip is not None else None
    raised = plus_number(clip.inputs[0]) if clip is not None else None
    if clip is None or raised is None or limits is None or limits[0] != 0:
        return None
    scaled = product_of(raised[0], stop=(data,))
    if not scaled.is_power_of(data):
        return None
    pairs = [(scaled.number, 1 / TOP), (raised[1], SHIFT / TOP), (limits[1], 1.0)]
    return [clip, raised[2], *scaled.nodes], pairs


def _argument(curve: ir.Node, data: ir.Value) -> Product | None:
    """What a function of one operand is applied to, if that is a number times `data`."""
    value = curve.inputs[0]
    argument = product_of(value, stop=(data,)) if value is not None else None
    return argument if argument is not None and argument.is_power_of(data) else None


def _only_node(product: Product, *op_types: str) -> ir.Node | None:
    """The node of one of these types that makes the only value of a product."""
    if list(product.powers.values()) != [1.0]:
        return None
    return _produced(next(iter(product.powers)), *op_types)


def _produced(value: ir.Value | None, *op_types: str) -> ir.Node | None:
    node = value.producer() if value is not None else None
    return node if node is not None and node.domain == "" and node.op_type in op_types else None
