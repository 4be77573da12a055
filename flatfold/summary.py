"""Counts that people compare graphs by."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import onnx_ir as ir

# Inputs of BatchNormalization that are statistics, not parameters.
STATISTICS = (3, 4)


@dataclass(frozen=True)
class Summary:
    """Size of a graph. `macs`: multiply-accumulates of Conv and matrix products for one run.

    `parameters` counts floating-point weights, running statistics of BatchNormalization left out.
    `macs` is None where a size is open.
    """

    nodes: int
    operators: dict[str, int]
    parameters: int
    macs: int | None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def summarise(model: ir.Model, batch: int = 1) -> Summary:
    """Counts over the main graph and every subgraph; an open batch axis counts as `batch`."""
    operators: Counter[str] = Counter()
    parameters, macs, known = 0, 0, True
    seen: set[ir.Value] = set()
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        operators[node.op_type] += 1
        work = macs_of(node, batch)
        known = known and work is not None
        macs += work or 0
        for index, value in enumerate(node.inputs):
            if value is not None and value not in seen and _is_parameter(node, index, value):
                seen.add(value)
                parameters += math.prod(shape_of(value) or ())
    ordered = dict(sorted(operators.items(), key=lambda item: (-item[1], item[0])))
    return Summary(sum(operators.values()), ordered, parameters, macs if known else None)


def _is_parameter(node: ir.Node, index: int, value: ir.Value) -> bool:
    if node.op_type == "BatchNormalization" and index in STATISTICS:
        return False
    floating = value.dtype is not None and value.dtype.is_floating_point()
    return value.is_initializer() and floating and math.prod(shape_of(value) or (1,)) > 1


def macs_of(node: ir.Node, batch: int = 1) -> int | None:
    """Multiply-accumulates of a Conv or a product of matrices, 0 of other nodes.

    An open batch axis counts as `batch`, for one image; other open axes make it unknown.
    """
    if node.op_type == "Conv":
        weight, out = shape_of(node.inputs[1]), shape_of(node.outputs[0], batch)
        return None if weight is None or out is None else math.prod(weight[1:]) * math.prod(out)
    if node.op_type in ("Gemm", "MatMul"):
        left, out = shape_of(node.inputs[0], batch), shape_of(node.outputs[0], batch)
        return None if left is None or out is None else left[-1] * math.prod(out)
    return 0


def shape_of(value: ir.Value | None, batch: int | None = None) -> tuple[int, ...] | None:
    """Its sizes, an open first one as `batch`; None where one is open."""
    if value is None or value.shape is None:
        return None
    dims = list(value.shape.dims)
    if batch is not None and dims and not isinstance(dims[0], int):
        dims[0] = batch
    sizes = tuple(dim for dim in dims if isinstance(dim, int))
    return sizes if len(sizes) == len(dims) else None
