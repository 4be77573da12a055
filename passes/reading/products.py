"""A value as a number times powers of other values, in whatever order its products are written.

0.5 * x * g,  (x * g) / 2,  x * (g * 0.5)    are all    number 0.5, powers {x: 1, g: 1}
x / sqrt(v),  x * (1 / sqrt(v))                          number 1,   powers {x: 1, v: -1/2}
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from flatfold.passes.reading.node import constant, single_number, why_shared

MOST_NODES = 16  # of one product; what engines know has fewer

DEGREE = 3  # of what is read as a polynomial

Polynomial = Mapping[int, float]
Factor = tuple[ir.Value | None, float]  # a value and its exponent


@dataclass
class Product:
    """number * product of value ** exponent, and the nodes that compute it, last one first."""

    number: float = 1.0
    powers: dict[ir.Value, float] = field(default_factory=dict)
    nodes: list[ir.Node] = field(default_factory=list)

    def is_power_of(self, value: ir.Value, exponent: float = 1.0) -> bool:
        """Whether it is a number times this power of `value`, and of nothing else."""
        return self.powers == {value: exponent}


def product_of(value: ir.Value, stop: Collection[ir.Value] = ()) -> Product:
    """`value` as a product; what is read elsewhere too, and `stop`, are not looked into."""
    product = Product()
    if value in stop:
        product.powers[value] = 1.0
        return product
    pending: list[tuple[ir.Value, float, bool]] = [(value, 1.0, True)]
    while pending:
        current, exponent, looks_inside = pending.pop()
        number = single_number(current)
        if number is not None:
            with np.errstate(all="ignore"):
                product.number *= float(np.float64(number) ** exponent)
            continue
        node = current.producer()
        inside = looks_inside and current not in stop and node is not None
        inside = inside and (current is value or why_shared(current) is None)
        factors = _factors(node) if inside and node is not None else []
        if not factors or len(product.nodes) == MOST_NODES or node is None:
            product.powers[current] = product.powers.get(current, 0.0) + exponent
            continue
        product.nodes.append(node)
        product.number *= -1.0 if node.op_type == "Neg" and exponent % 2 else 1.0
        whole = all(power == int(power) for _, power in factors)  # (a b)^(1/2) may be no product
        pending += [(v, exponent * power, whole) for v, power in factors if v is not None]
    product.powers = {v: exponent for v, exponent in product.powers.items() if exponent}
    return product


def _factors(node: ir.Node) -> list[Factor]:
    """What a node multiplies, each with its exponent; none if it is no product."""
    if node.domain not in ("", "ai.onnx") or None in node.inputs:
        return []
    first: Factor = (node.inputs[0], 1.0) if node.inputs else (None, 1.0)
    match node.op_type:
        case "Mul":
            return [first, (node.inputs[1], 1.0)]
        case "Div":
            return [first, (node.inputs[1], -1.0)]
        case "Neg":
            return [first]
        case "Reciprocal":
            return [(node.inputs[0], -1.0)]
        case "Sqrt":
            return [(node.inputs[0], 0.5)]
        case "Pow":
            power = single_number(node.inputs[1])
            return [(node.inputs[0], power)] if power is not None else []
    return []


def plus_number(value: ir.Value | None) -> tuple[ir.Value, float, ir.Node] | None:
    """(other, number, node) where `value` is other + number."""
    node = value.producer() if value is not None else None
    if node is None or (node.op_type, node.domain) != ("Add", ""):
        return None
    for index in (0, 1):
        number, other = single_number(node.inputs[index]), node.inputs[1 - index]
        if number is not None and other is not None and constant(other) is None:
            return other, number, node
    return None


def polynomial_of(
    value: ir.Value | None, variable: ir.Value, nodes: dict[ir.Node, Polynomial | None]
) -> Polynomial | None:
    """The coefficients of a polynomial of degree 3 at most by their exponents; None if it is none.

    Adds the nodes that compute it to `nodes`, each with its own.
    """
    if value is variable:
        return {1: 1.0}
    number = single_number(value)
    if number is not None:
        return {0: number}
    node = value.producer() if value is not None else None
    if node is None or node.domain != "" or len(nodes) >= MOST_NODES:
        return None
    if node not in nodes:
        nodes[node] = None
        nodes[node] = _combined(node, variable, nodes)
    return nodes[node]


def _combined(
    node: ir.Node, variable: ir.Value, nodes: dict[ir.Node, Polynomial | None]
) -> Polynomial | None:
    if node.op_type not in ("Add", "Mul", "Pow"):
        return None
    left, right = (polynomial_of(value, variable, nodes) for value in node.inputs)
    if left is None or right is None:
        return None
    if node.op_type == "Add":
        return {power: left.get(power, 0.0) + right.get(power, 0.0) for power in {*left, *right}}
    if node.op_type == "Mul":
        return _times(left, right)
    if right == {0: 3.0}:
        return _times(_times(left, left), left)
    return _times(left, left) if right == {0: 2.0} else None


def _times(a: Polynomial | None, b: Polynomial) -> Polynomial | None:
    if a is None or max(a) + max(b) > DEGREE:
        return None
    result: dict[int, float] = {}
    for one, c in a.items():
        for two, d in b.items():
            result[one + two] = result.get(one + two, 0.0) + c * d
    return result
