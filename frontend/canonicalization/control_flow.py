"""If with a constant condition, replaced by the branch that it takes."""

from __future__ import annotations

import onnx_ir as ir

from flatfold.frontend.canonicalization.symbolic_dims import constant_of


def inline_constant_if(graph: ir.Graph) -> bool:
    """Inline the taken branch of every If of `graph` with a constant condition.

    Each output becomes an Identity of the branch's output. An If inside an inlined branch is left
    for the next call. Names may clash afterwards. Returns whether any If was inlined.
    """
    constant_ifs = [node for node in graph if _condition(node) is not None]
    for node in constant_ifs:
        name, other = "then_branch", "else_branch"
        if not _condition(node):
            name, other = other, name
        branch = node.attributes[name].as_graph()
        results = list(branch.outputs)
        branch.outputs.clear()  # a value belongs to one graph
        _move(branch, graph, node)
        copies = [ir.node("Identity", [value], name=node.name) for value in results]
        values = [copy.outputs[0] for copy in copies]
        for copy, output in zip(values, node.outputs, strict=True):
            copy.shape, copy.type = output.shape, output.type
        ir.convenience.replace_nodes_and_values(graph, node, [node], copies, node.outputs, values)
        _let_go(node.attributes[other].as_graph())
    return bool(constant_ifs)


def _let_go(branch: ir.Graph) -> None:
    """Let the nodes of a branch that is gone read nothing: what they read may be read no more."""
    for node in ir.traversal.RecursiveGraphIterator(branch):
        for index in range(len(node.inputs)):
            node.replace_input_with(index, None)


def _condition(node: ir.Node) -> bool | None:
    """The condition of an If, if that is a constant."""
    if (node.op_type, node.domain) != ("If", "") or len(node.inputs) != 1:
        return None
    array = constant_of(node.inputs[0])
    return None if array is None or array.size != 1 else bool(array.item())


def _move(branch: ir.Graph, graph: ir.Graph, before: ir.Node) -> None:
    """Move nodes and initializers of `branch` into `graph`, the nodes in front of `before`."""
    for name, value in list(branch.initializers.items()):
        del branch.initializers[name]
        while value.name in graph.initializers:
            value.name = f"{value.name}_"
        graph.register_initializer(value)
    nodes = list(branch)
    branch.remove(nodes)
    graph.insert_before(before, nodes)
