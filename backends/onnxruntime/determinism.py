"""Names and an order of nodes that depend on the structure of a graph alone.

ONNX Runtime orders and names the nodes that its layout pass inserts by the order of a hash table,
which changes from run to run. With stable names the same model is always saved as the same bytes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import onnx_ir as ir
from onnx_ir.traversal import RecursiveGraphIterator


def stable_names(model: ir.Model) -> None:
    """Orders the nodes of `model` depth first from the outputs, and numbers nodes and values.

    In place. The inputs and outputs of every graph keep their names.
    """
    graphs = list(model.graphs())
    for graph in graphs:
        order = _depth_first(graph)
        graph.remove(order)
        graph.extend(order)
    _number(model, graphs)
    for graph in graphs:
        for name, value in sorted(graph.initializers.items()):
            del graph.initializers[name]
            graph.initializers[name] = value
    for name, version in sorted(model.opset_imports.items()):
        del model.opset_imports[name]
        model.opset_imports[name] = version


def _number(model: ir.Model, graphs: list[ir.Graph]) -> None:
    interface = {id(value) for graph in graphs for value in (*graph.inputs, *graph.outputs)}
    nodes = list(RecursiveGraphIterator(model.graph))
    taken = {value.name for node in nodes for value in (*node.inputs, *node.outputs) if value}
    taken |= {value.name for graph in graphs for value in (*graph.inputs, *graph.outputs)}
    free = (name for n in itertools.count() if (name := f"_{n:06d}") not in taken)
    numbered = interface
    for number, node in enumerate(nodes):
        node.name = f"node_{number:06d}"
        for value in (*node.inputs, *node.outputs):
            if value is not None and value.name and id(value) not in numbered:
                numbered.add(id(value))
                value.name = next(free)


def _depth_first(graph: ir.Graph) -> list[ir.Node]:
    """The nodes, each after those that it reads; nodes that no output needs come last."""
    order: dict[ir.Node, None] = {}
    roots = [value.producer() for value in graph.outputs]
    for root in (*roots, *graph):
        stack = [root] if root is not None else []
        while stack:
            unordered = [n for n in _producers(stack[-1], graph) if n not in order]
            if unordered:
                stack.append(unordered[0])
            else:
                order.setdefault(stack.pop())
    return list(order)


def _producers(node: ir.Node, graph: ir.Graph) -> Iterator[ir.Node]:
    """The nodes of `graph` whose outputs are read by `node` or a graph inside it."""
    inner = (
        inside
        for attribute in node.attributes.values()
        if attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
        for body in (
            attribute.as_graphs()
            if attribute.type == ir.AttributeType.GRAPHS
            else [attribute.as_graph()]
        )
        for inside in RecursiveGraphIterator(body)
    )
    for reader in itertools.chain([node], inner):
        for value in reader.inputs:
            producer = value.producer() if value is not None else None
            if producer is not None and producer.graph is graph:
                yield producer
