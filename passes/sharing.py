"""Who makes a value, and whether anybody but one node reads it."""

from __future__ import annotations

import onnx_ir as ir

from flatfold.passes.geometry import Decline


def producer_of(value: ir.Value) -> ir.Node:
    producer = value.producer()
    if producer is None:
        raise Decline("INPUT", f"{value.name} is an input of the graph")
    return producer


def shared(value: ir.Value) -> Decline | None:
    """Why what makes a value must stay; None if a single node of the same graph reads it."""
    if value.is_graph_output():
        return Decline("OUTPUT", f"{value.name} is an output of the graph")
    uses, producer = value.uses(), value.producer()
    if len(uses) != 1:
        return Decline("SHARED", f"{value.name} is read {len(uses)} times")
    if producer is not None and next(iter(uses)).node.graph is not producer.graph:
        return Decline("SHARED", f"{value.name} is read 1 time, inside a subgraph")
    return None
