"""An If whose condition is a constant is the branch that it takes."""

from __future__ import annotations

import onnx_ir as ir

from flatfold.frontend.canonicalize.symbolic_dims import constant_of


def take_branches(graph: ir.Graph) -> bool:
    """Put the branch taken in the place of every If of `graph` with a constant condition.

    Whether there were any; one inside a branch is left for the next call. Each output is an
    Identity of what the branch gives back. Names may be there twice afterwards.
    """
    taken = [node for node in graph if _condition(node) is not None]
    for node in taken:
        name = "then_branch" if _condition(node) else "else_branch"
        body = node.attributes[name].as_graph()
        results = list(body.outputs)
        body.outputs.clear()  # a value belongs to one graph
        _move(body, graph, node)
        copies = [ir.node("Identity", [value], name=node.name) for value in results]
        values = [copy.outputs[0] for copy in copies]
        for copy, output in zip(values, node.outputs, strict=True):
            copy.shape, copy.type = output.shape, output.type
        ir.convenience.replace_nodes_and_values(graph, node, [node], copies, node.outputs, values)
    return bool(taken)


def _condition(node: ir.Node) -> bool | None:
    """What an If decides by, if that is a constant."""
    if (node.op_type, node.domain) != ("If", "") or len(node.inputs) != 1:
        return None
    array = constant_of(node.inputs[0])
    return None if array is None or array.size != 1 else bool(array.item())


def _move(body: ir.Graph, graph: ir.Graph, before: ir.Node) -> None:
    """Everything in `body` into `graph`, in front of a node."""
    for name, value in list(body.initializers.items()):
        del body.initializers[name]
        while value.name in graph.initializers:
            value.name = f"{value.name}_"
        graph.register_initializer(value)
    nodes = list(body)
    body.remove(nodes)
    graph.insert_before(before, nodes)
