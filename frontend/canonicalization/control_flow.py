"""The bodies of If, Loop and Scan: which there are, and what of them is not needed.

An If with a constant condition is replaced by the branch that it takes.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from flatfold.frontend.canonicalization.symbolic_dims import constant_of

BRANCHES = ("then_branch", "else_branch")


def bodies_of(node: ir.Node) -> list[ir.Graph]:
    """The graphs in the attributes of `node`."""
    single, several = ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS
    bodies = [a.as_graph() for a in node.attributes.values() if a.type == single]
    lists = [a.as_graphs() for a in node.attributes.values() if a.type == several]
    return bodies + [body for bodies in lists for body in bodies]


def graphs_of(graph: ir.Graph) -> Iterator[ir.Graph]:
    """`graph`, and then the bodies of the nodes that it has by then, with theirs."""
    yield graph
    for node in list(graph):
        for body in bodies_of(node):
            yield from graphs_of(body)


def remove_unused(model: ir.Model) -> None:
    """Remove what nothing reads: nodes, optional outputs, initializers; of the bodies too."""
    from onnx_ir.passes import common

    _remove_unread_nodes(model.graph)
    common.RemoveUnusedNodesPass()(model)
    for part in graphs_of(model.graph):
        for name, value in list(part.initializers.items()):
            if not (value.uses() or value.is_graph_output() or value.is_graph_input()):
                del part.initializers[name]


def _remove_unread_nodes(graph: ir.Graph) -> None:
    for node in reversed(graph):
        if any(value.uses() or value.is_graph_output() for value in node.outputs):
            for body in bodies_of(node):
                _remove_unread_nodes(body)
            continue
        for body in bodies_of(node):
            _let_go(body)
        graph.remove(node, safe=True)


def drop_unread_results(graph: ir.Graph) -> bool:
    """Drop each output of an If that nothing reads, from its branches too; whether any was."""
    changed = False
    for part in graphs_of(graph):
        for node in part:
            if (node.op_type, node.domain) == ("If", ""):
                changed |= _drop_unread(node)
    return changed


def _drop_unread(node: ir.Node) -> bool:
    """Do so for one If, unless nothing at all is read."""
    read = [value.uses() or value.is_graph_output() for value in node.outputs]
    if all(read) or not any(read):
        return False
    kept = [i for i, used in enumerate(read) if used]
    for branch in bodies_of(node):
        results = [branch.outputs[i] for i in kept]
        branch.outputs.clear()
        branch.outputs.extend(results)
    smaller = ir.node("If", node.inputs, num_outputs=len(kept), name=node.name)
    for name, attribute in list(node.attributes.items()):
        del node.attributes[name]
        smaller.attributes[name] = attribute
    smaller.metadata_props.update(node.metadata_props)
    old = [node.outputs[i] for i in kept]
    assert node.graph is not None
    ir.convenience.replace_nodes_and_values(
        node.graph, node, [node], [smaller], old, smaller.outputs
    )
    return True


def inline_constant_if(graph: ir.Graph) -> bool:
    """Inline the taken branch of every If of `graph` with a constant condition.

    Each output becomes an Identity of the branch's output. An If inside an inlined branch is left
    for the next call. Names may clash afterwards. Returns whether any If was inlined.
    """
    constant_ifs = [node for node in graph if _condition(node) is not None]
    for node in constant_ifs:
        name, other = BRANCHES if _condition(node) else BRANCHES[::-1]
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
