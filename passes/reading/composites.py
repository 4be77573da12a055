"""Operators that a graph spells out in several nodes, and that engines compute in one step.

    Gelu(x) = x (1 + erf(x / sqrt(2))) / 2
    LayerNormalization(x) = (x - mean) / sqrt(mean((x - mean)^2) + eps) * scale + bias

An engine finds them by their nodes (Hendrycks & Gimpel 2016, Ba et al. 2016). A factor of 1/2, or
a scale and bias, that went into the next layer would save a node and cost the engine its kernel.
So their parts stay, until a pass writes the whole as one operator.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from flatfold.passes.reading.node import constant, rank_of

COMPOSITE_KEY = "flatfold.composite"

CLOSE = 1e-3  # to which share exporters write sqrt(2) and the like, and engines read it
ROUNDINGS = 4  # of its constants, up to which a spelling is the operator itself
ROUNDOFF = {
    ir.DataType.FLOAT: 2.0**-24,
    ir.DataType.FLOAT16: 2.0**-11,
    ir.DataType.BFLOAT16: 2.0**-8,
    ir.DataType.DOUBLE: 2.0**-53,
}


@dataclass(frozen=True)
class Composite:
    """op_type(data), with these attributes; of a norm, along `axes`, times `scale`, plus `bias`.

    nodes: those that spell it out, last one first.
    deviation: by which share its constants differ from those of the operator.
    found: whether engines find it by its nodes, so that none of these may go into a layer.
    """

    op_type: str
    data: ir.Value
    nodes: tuple[ir.Node, ...]
    attributes: Mapping[str, float | int | str] = field(default_factory=dict)
    axes: tuple[int, ...] = ()
    scale: ir.Value | None = None
    bias: ir.Value | None = None
    deviation: float = 0.0
    found: bool = True

    @property
    def output(self) -> ir.Value:
        return self.nodes[0].outputs[0]

    @property
    def is_exact(self) -> bool:
        """Whether it is the operator up to rounding of its constants."""
        dtype = self.output.dtype
        return dtype is not None and self.deviation <= ROUNDINGS * ROUNDOFF.get(dtype, -1.0)


CompositeReader = Callable[[ir.Node], Composite | None]


def mark_composites(graph: ir.Graph, readers: Sequence[CompositeReader]) -> None:
    """Note in each part of an operator that engines find, in its `meta`, which one it belongs to.

    `readers` return the operator that ends in a node, if there is one.
    """
    for node in graph:
        node.meta.pop(COMPOSITE_KEY, None)
    for node in graph:
        for reader in readers:
            composite = reader(node)
            if composite is None or not composite.found:
                continue
            for part in composite.nodes:
                part.meta[COMPOSITE_KEY] = composite.op_type


def deviation_of(pairs: Collection[tuple[float, float]]) -> float:
    """The largest share by which a number differs from what it should be."""
    shares = [abs(number / wanted - 1) for number, wanted in pairs]
    return math.inf if any(map(math.isnan, shares)) else max(shares, default=0.0)


def whole(root: ir.Node, nodes: Collection[ir.Node], data: ir.Value) -> tuple[ir.Node, ...]:
    """The nodes, last one first, if nothing but `root` is read elsewhere; else none.

    None either where constants give the output more axes than `data` has.
    """
    inner, rank = set(nodes), rank_of(data)
    if rank is None or rank != rank_of(root.outputs[0]) or constant(data) is not None:
        return ()
    for node in inner - {root}:
        for value in node.outputs:
            readers = [use.node for use in value.uses() if use.node.graph is not None]
            if value.is_graph_output() or not inner.issuperset(readers):
                return ()
    order: dict[ir.Node, None] = {}
    _add_producers_first(root, inner, order)
    return tuple(reversed(order)) if len(order) == len(inner) else ()


def _add_producers_first(node: ir.Node, inner: set[ir.Node], order: dict[ir.Node, None]) -> None:
    for value in node.inputs:
        producer = value.producer() if value is not None else None
        if producer is not None and producer in inner and producer not in order:
            _add_producers_first(producer, inner, order)
    order[node] = None
