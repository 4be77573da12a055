"""Write an activation that is spelled out in several operators as the operator that it is."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from flatfold.passes.cost.model import CostModel
from flatfold.passes.decline import Decline
from flatfold.passes.lowering.replacement import Names, Replacement
from flatfold.passes.reading.affine import Affine
from flatfold.passes.reading.layout import make_term
from flatfold.passes.reading.meaning import scale
from flatfold.passes.reading.node import (
    clip_limits,
    constant,
    dims_of,
    number,
    only_producer,
    pixel_count,
    source,
)
from flatfold.passes.rewrite import LocalRewrite, Proposal, Region

SHIFT, TOP = 3.0, 6.0
HARD_SWISH_OPSET = 14
TYPES = (ir.DataType.FLOAT, ir.DataType.FLOAT16)
HARD_SIGMOID = {"alpha": 1 / TOP, "beta": SHIFT / TOP}

Matched = tuple[ir.Value, list[ir.Node]]  # what an activation reads, and its nodes, last one first


class FuseActivations(LocalRewrite):
    """clip(x + 3, 0, 6) / 6 = HardSigmoid(x),  x * HardSigmoid(x) = HardSwish(x).

    *Given* Add, Clip, Div and Mul in any order in which exporters write the two (Howard et al.
    2019). *Result* one HardSwish; before opset 14 a HardSigmoid and a Mul.

    *Declines when* the constants are others, a value between is read elsewhere, the target is slow
    at a HardSigmoid, or the type is finer than single precision, which the factor 1/6 of one has.
    """

    name = "fuse-activations"
    first = True

    def match(self, node: ir.Node, names: Names, cost: CostModel) -> Proposal:
        """One activation that ends in `node`."""
        if node.domain != "" or node.op_type not in ("Div", "Mul"):
            raise Decline("NONLINEAR", "no activation ends in it")
        swish = _hard_swish(node)
        data, nodes = swish or _hard_sigmoid(node)
        whole = swish is not None and names.opset >= HARD_SWISH_OPSET
        if node.outputs[0].dtype not in TYPES:
            raise Decline("NONLINEAR", "the factor 1/6 of the operator has single precision")
        if not whole and cost.profile.hard_sigmoid > 1:
            raise Decline("NONLINEAR", "the target is slow at a HardSigmoid")
        term = make_term(data, scale(data).stencil)
        region = Region(node, Affine((term,), None, 0), tuple(nodes), {}, ())
        replacement = _written(node, data, whole, swish is not None, names)
        one = cost.elementwise(1, pixel_count(dims_of(data)[1:]))
        before, after = (
            sum((one for _ in range(count)), type(one)())
            for count in (len(nodes), len(replacement.nodes))
        )
        return Proposal(region, replacement, before, after)


def _hard_swish(node: ir.Node) -> Matched | None:
    """x * clip(x + 3, 0, 6), the division anywhere; None where `node` is no end of it."""
    divided = _divided(node)
    product = only_producer(divided, "Mul") if divided is not None else node
    if product is None or product.op_type != "Mul":
        return None
    for gate, data in ((0, 1), (1, 0)):
        matched = _gate(product.inputs[gate], divided is None)
        if matched is not None and matched[0] is product.inputs[data]:
            return matched[0], [*([node] if divided is not None else []), product, *matched[1]]
    return None


def _gate(value: ir.Value | None, is_divided: bool) -> Matched | None:
    """clip(x + 3, 0, 6) that ends in `value`; with `is_divided` the HardSigmoid, by name too."""
    if not is_divided:
        return _clipped(value)
    named = only_producer(value, "HardSigmoid")
    if named is not None:
        alpha, beta = number(named, "alpha", 0.2), number(named, "beta", 0.5)
        standard = np.float32(alpha) == np.float32(HARD_SIGMOID["alpha"]) and beta == 0.5
        return (source(named), [named]) if standard else None
    last = only_producer(value, "Div") or only_producer(value, "Mul")
    return _matched_sigmoid(last) if last is not None else None


def _hard_sigmoid(node: ir.Node) -> Matched:
    matched = _matched_sigmoid(node)
    if matched is None:
        raise Decline("NONLINEAR", "no activation ends in it")
    return matched


def _matched_sigmoid(node: ir.Node) -> Matched | None:
    """clip(x + 3, 0, 6) / 6 that ends in `node`."""
    clipped = _clipped(_divided(node))
    return None if clipped is None else (clipped[0], [node, *clipped[1]])


def _divided(node: ir.Node) -> ir.Value | None:
    """What `node` divides by 6, or multiplies by 1/6 rounded to single precision."""
    for index in (0, 1) if node.op_type == "Mul" else (1,):
        factor = _number(node.inputs[index])
        wanted = np.float32(TOP) if node.op_type == "Div" else np.float32(1 / TOP)
        if factor is not None and np.float32(factor) == wanted:
            return node.inputs[1 - index]
    return None


def _clipped(value: ir.Value | None) -> Matched | None:
    """clip(x + 3, 0, 6) that ends in `value`, which nothing else reads."""
    clip = only_producer(value, "Clip")
    if clip is None or clip_limits(clip) != (0.0, TOP):
        return None
    shifted = only_producer(clip.inputs[0], "Add")
    for index in (0, 1) if shifted is not None else ():
        data = shifted.inputs[1 - index] if shifted is not None else None
        if shifted is not None and data is not None and _number(shifted.inputs[index]) == SHIFT:
            return data, [clip, shifted]
    return None


def _number(value: ir.Value | None) -> float | None:
    """A constant of one element, which does not add an axis."""
    array = constant(value)
    return float(array.reshape(-1)[0]) if array is not None and array.shape in ((), (1,)) else None


def _written(
    node: ir.Node, data: ir.Value, whole: bool, is_swish: bool, names: Names
) -> Replacement:
    old = node.outputs[0]
    kinds = ["HardSwish"] if whole else ["HardSigmoid", *(["Mul"] if is_swish else [])]
    nodes: list[ir.Node] = []
    for kind in kinds:
        inputs = [data, nodes[-1].outputs[0]] if kind == "Mul" else [data]
        new = ir.node(kind, inputs, HARD_SIGMOID if kind == "HardSigmoid" else {})
        new.name = new.outputs[0].name = names.fresh(f"{old.name}.{kind.lower()}")
        new.outputs[0].shape, new.outputs[0].type = data.shape, old.type
        nodes.append(new)
    return Replacement(nodes[-1].outputs[0], nodes, [])
