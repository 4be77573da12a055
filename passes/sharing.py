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
    readers = [use.node for use in value.uses() if use.node.graph is not None]  # drafts are in none
    producer = value.producer()
    if len(readers) != 1:
        return Decline("SHARED", f"{value.name} is read {len(readers)} times")
    if producer is not None and readers[0].graph is not producer.graph:
        return Decline("SHARED", f"{value.name} is read 1 time, inside a subgraph")
    return None
