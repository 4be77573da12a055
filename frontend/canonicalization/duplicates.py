"""Nodes that compute the same twice (common subexpressions), and numbers that are there twice."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Hashable

import onnx_ir as ir

from flatfold.frontend.canonicalization.control_flow import bodies_of
from flatfold.frontend.canonicalization.fold_constants import KEPT_OPERATORS

_MOST_ELEMENTS = 8  # of constants that are compared: larger ones are weights, each of its own


def merge_constants(graph: ir.Graph) -> bool:
    """Let all that reads one of several equal constants read the first; return whether any did.

    Constants of up to 8 elements, such as axes and factors: equal weights are still parameters of
    their own. Those that the caller may override, and outputs, stay.
    """
    known: dict[Hashable, ir.Value] = {}
    changed = False
    for value in graph.initializers.values():
        tensor = value.const_value
        if tensor is None or value.is_graph_input() or value.is_graph_output() or not value.uses():
            continue
        if tensor.size > _MOST_ELEMENTS or tensor.dtype == ir.DataType.STRING:
            continue
        key = tensor.dtype, tuple(tensor.shape), value.type, tensor.tobytes()
        first = known.setdefault(key, value)
        if first is not value:
            ir.convenience.replace_all_uses_with(value, first)
            changed = True
    return changed


_Type = ir.AttributeType
PLAIN = (
    *(_Type.FLOAT, _Type.INT, _Type.STRING, _Type.TENSOR),
    *(_Type.FLOATS, _Type.INTS, _Type.STRINGS),
)


def merge_nodes(graph: ir.Graph) -> bool:
    """Let what reads a node that computes the same as an earlier one read that; whether any did.

    The two have the same operator, attributes and inputs. Random operators, those of other domains
    and those with subgraphs stay, and so do nodes that make an output of their graph. In a body,
    the nodes of the graph around it that come before it are earlier ones.
    """
    return _merge(graph, ChainMap())


def _merge(graph: ir.Graph, known: ChainMap[Hashable, ir.Node]) -> bool:
    changed = False
    for node in graph:
        for body in bodies_of(node):
            changed |= _merge(body, known.new_child())
        key = _key(node)
        first = known.setdefault(key, node) if key is not None else node
        if first is node or any(value.is_graph_output() for value in node.outputs):
            continue
        for mine, other in zip(node.outputs, first.outputs, strict=True):
            ir.convenience.replace_all_uses_with(mine, other)
        graph.remove(node, safe=True)
        changed = True
    return changed


def _key(node: ir.Node) -> Hashable:
    """What two nodes that compute the same have in common; None where that cannot be said."""
    if node.domain != "" or node.op_type in (*KEPT_OPERATORS, "Dropout"):
        return None
    if any(attribute.type not in PLAIN for attribute in node.attributes.values()):
        return None  # bodies, and types, such as that of an Optional
    attributes = [(name, a.type, _hashable(a)) for name, a in sorted(node.attributes.items())]
    return node.op_identifier(), len(node.outputs), tuple(node.inputs), tuple(attributes)


def _hashable(attribute: ir.Attr) -> Hashable:
    if attribute.type == ir.AttributeType.TENSOR:
        tensor = attribute.as_tensor()
        return tensor.dtype, tuple(tensor.shape), tensor.tobytes()
    value = attribute.value
    return tuple(value) if isinstance(value, list | tuple) else value
