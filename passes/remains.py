"""What is in a model, and what a rewrite leaves behind in it."""

from __future__ import annotations

import onnx_ir as ir


def names_of(model: ir.Model) -> set[str]:
    """Every name in use; a body of If or Loop sees the names around it, so all are one set."""
    names: set[str | None] = set()
    for graph in model.graphs():
        names.update(graph.initializers)
        names.update(value.name for value in graph.inputs)
        names.update(value.name for node in graph for value in node.outputs)
    return {name for name in names if name}


def drop_dead(graph: ir.Graph, values: list[ir.Value]) -> None:
    """Remove what computed `values`, and so on upwards, if nothing reads it any more."""
    while values:
        node = values.pop().producer()
        if node is None or node.graph is not graph:
            continue
        if any(value.uses() or value.is_graph_output() for value in node.outputs):
            continue
        values += [value for value in node.inputs if value is not None]
        graph.remove(node, safe=True)


def drop_unused(graph: ir.Graph) -> None:
    """Remove initializers that nothing reads."""
    for name, value in list(graph.initializers.items()):
        if not (value.uses() or value.is_graph_output() or value.is_graph_input()):
            del graph.initializers[name]
