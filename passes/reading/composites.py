"""Operators that engines compute in one step though they are spelled out; their parts stay.

    Gelu(x) = x (1 + erf(x / sqrt(2))) / 2,  or with tanh(sqrt(2 / pi) (x + 0.044715 x^3)) for erf
    LayerNormalization(x) = (x - mean) / sqrt(mean((x - mean)^2) + eps) * scale + bias

An engine finds them by their nodes (Hendrycks & Gimpel 2016, Ba et al. 2016). A factor of 1/2, or
a scale and bias, that went into the next layer would save a node and cost the engine its kernel.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from flatfold.passes.reading.node import constant, ints, number, why_shared

COMPOSITE_KEY = "flatfold.composite"

CLOSE = 1e-3  # to which share exporters write sqrt(2) and the like
MOST_STEPS = 8  # from the input of a tanh back to x


def mark_composites(graph: ir.Graph) -> None:
    """Note in each part of such an operator, in its `meta`, which one it belongs to."""
    for node in graph:
        node.meta.pop(COMPOSITE_KEY, None)
    for node in graph:
        if node.domain != "":
            continue
        for name, parts in _composites(node):
            for part in parts:
                part.meta[COMPOSITE_KEY] = name


def _composites(node: ir.Node) -> Iterator[tuple[str, list[ir.Node]]]:
    if node.op_type in ("Erf", "Tanh"):
        parts = _gelu(node)
        if parts:
            yield "Gelu", parts
    if node.op_type == "Div":
        parts = _scale_and_bias(node)
        if parts:
            yield "LayerNormalization", parts


def _gelu(curve: ir.Node) -> list[ir.Node]:
    """The linear parts of the Gelu around an Erf or Tanh; none if there is no Gelu."""
    data, inner = _erf_input(curve) if curve.op_type == "Erf" else _tanh_input(curve)
    raised = _reader(curve, "Add")
    if data is None or raised is None or _other_number(raised, curve) != 1:
        return []
    first = _reader(raised, "Mul")
    if first is None:
        return []
    operand = _other(first, raised)
    if operand is data:
        last = _reader(first, "Mul")
        halves = last is not None and _other_number(last, first) == 0.5
        return [*inner, raised, first, last] if halves and last is not None else []
    halved = operand.producer() if operand is not None else None
    if halved is None or halved.op_type != "Mul" or data not in halved.inputs:
        return []
    halves = any(_number(value) == 0.5 for value in halved.inputs)
    return [*inner, raised, first, halved] if halves else []


def _erf_input(curve: ir.Node) -> tuple[ir.Value | None, list[ir.Node]]:
    """x of erf(x / sqrt(2)), and the node that divides."""
    scaled = curve.inputs[0].producer() if curve.inputs[0] is not None else None
    if scaled is None or scaled.domain != "" or scaled.op_type not in ("Div", "Mul"):
        return None, []
    wanted = math.sqrt(2) if scaled.op_type == "Div" else math.sqrt(0.5)
    for index in (1,) if scaled.op_type == "Div" else (0, 1):
        factor = _number(scaled.inputs[index])
        if factor is not None and math.isclose(factor, wanted, rel_tol=CLOSE):
            return scaled.inputs[1 - index], [scaled]
    return None, []


def _tanh_input(curve: ir.Node) -> tuple[ir.Value | None, list[ir.Node]]:
    """x of a polynomial in x with the coefficient 0.044715, and its nodes."""
    inner: list[ir.Node] = []
    pending, leaves, numbers = [curve.inputs[0]], set(), []
    while pending and len(inner) <= MOST_STEPS:
        value = pending.pop()
        node = value.producer() if value is not None else None
        if value is None or constant(value) is not None:
            numbers.append(_number(value))
        elif node is None or node.domain != "" or node.op_type not in ("Add", "Mul", "Pow"):
            leaves.add(value)
        elif node not in inner:
            inner.append(node)
            pending += node.inputs
    known = any(n is not None and math.isclose(n, 0.044715, rel_tol=CLOSE) for n in numbers)
    if pending or len(leaves) != 1 or not known:
        return None, []
    return leaves.pop(), inner


def _scale_and_bias(quotient: ir.Node) -> list[ir.Node]:
    """The scale and the bias behind (x - mean) / sqrt(variance + eps) along the last axis."""
    centred, spread = (value.producer() if value is not None else None for value in quotient.inputs)
    if centred is None or spread is None:
        return []
    if (centred.op_type, spread.op_type) != ("Sub", "Sqrt") or not _is_last_mean(centred):
        return []
    scaled = _reader(quotient, "Mul")
    shifted = _reader(scaled, "Add") if scaled is not None else None
    return [scaled, shifted] if scaled is not None and shifted is not None else []


def _is_last_mean(centred: ir.Node) -> bool:
    """Whether a Sub takes off the mean along the last axis of what it reads."""
    mean = centred.inputs[1].producer() if centred.inputs[1] is not None else None
    if mean is None or mean.op_type != "ReduceMean" or mean.inputs[0] is not centred.inputs[0]:
        return False
    axes = ints(mean, "axes", ())
    given = constant(mean.inputs[1]) if len(mean.inputs) > 1 else None
    axes = axes if given is None else tuple(int(axis) for axis in given.reshape(-1))
    shape = centred.outputs[0].shape
    last = (-1,) if shape is None else (-1, shape.rank() - 1)
    return len(axes) == 1 and axes[0] in last and number(mean, "keepdims", 1) == 1


def _reader(node: ir.Node, op_type: str) -> ir.Node | None:
    """The only node that reads `node`, if it is of this type."""
    if why_shared(node.outputs[0]) is not None:
        return None
    reader = next(iter(node.outputs[0].uses())).node
    return reader if (reader.op_type, reader.domain) == (op_type, "") else None


def _other(node: ir.Node, known: ir.Node) -> ir.Value | None:
    """The operand of a binary node that `known` does not make."""
    return node.inputs[1] if node.inputs[0] is known.outputs[0] else node.inputs[0]


def _other_number(node: ir.Node, known: ir.Node) -> float | None:
    return _number(_other(node, known))


def _number(value: ir.Value | None) -> float | None:
    array = constant(value)
    if array is None or np.size(array) != 1:
        return None
    return float(np.reshape(array, -1)[0])
