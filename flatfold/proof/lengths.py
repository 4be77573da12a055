"""How many products the longest sum of a graph adds up: K terms round by about u sqrt(K)."""

from __future__ import annotations

import math

import onnx_ir as ir


def rounding_growth(original: ir.Model, rewritten: ir.Model) -> float:
    """By how much more, at least 1, the rewritten graph may round (Higham and Mary 2019).

    Layers that were composed add up in one long sum what were several short ones.
    """
    return math.sqrt(max(longest_sum(rewritten) / longest_sum(original), 1.0))


def longest_sum(model: ir.Model) -> int:
    """Products in the longest sum of a layer or pool."""
    return max((_products(node) for node in model.graph.all_nodes()), default=1)


def _products(node: ir.Node) -> int:
    if node.op_type == "AveragePool" and "kernel_shape" in node.attributes:
        return math.prod(node.attributes["kernel_shape"].as_ints())
    weight = node.inputs[1] if len(node.inputs) > 1 else None
    if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul") or weight is None:
        return 1
    dims = [dim for dim in weight.shape or () if isinstance(dim, int)]
    if node.op_type == "Conv":
        return math.prod(dims[1:])
    if node.op_type == "ConvTranspose":
        return math.prod([*dims[:1], *dims[2:]])
    turned = node.op_type == "Gemm" and "transB" in node.attributes
    return max(dims[-1 if turned else 0] if dims else 1, 1)
