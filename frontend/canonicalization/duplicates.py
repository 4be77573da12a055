"""Nodes that compute the same twice (common subexpressions), and constants that are there twice."""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Hashable

import onnx_ir as ir

from flatfold.frontend.canonicalization.fold_constants import KEPT_OPERATORS

_GRAPHS = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
_COMPARED = 1 << 12  # bytes of a constant that are hashed, before all of it is compared


def merge_constants(graph: ir.Graph) -> bool:
    """Let all that reads one of several equal constants read the first; return whether any did.

    Constants that the caller may override, and outputs, stay.
    """
    alike: dict[Hashable, list[ir.Value]] = defaultdict(list)
    changed = False
    for value in graph.initializers.values():
        tensor = value.const_value
        if tensor is None or value.is_graph_input() or value.is_graph_output() or not value.uses():
            continue
        alike[tensor.dtype, tuple(tensor.shape), value.type].append(value)
    for values in alike.values():
        firsts: dict[int, list[ir.Value]] = defaultdict(list)
        for value in values if len(values) > 1 else ():
            key = zlib.crc32(_bytes(value)[:_COMPARED])
            first = next((v for v in firsts[key] if _bytes(v) == _bytes(value)), None)
            if first is None:
                firsts[key].append(value)
            else:
                ir.convenience.replace_all_uses_with(value, first)
                changed = True
    return changed


def _bytes(value: ir.Value) -> bytes:
    return value.const_value.tobytes() if value.const_value is not None else b""


def merge_nodes(graph: ir.Graph) -> bool:
    """Let what reads a node that computes the same as an earlier one read that; whether any did.

    The two have the same operator, attributes and inputs. Random operators, those of other domains
    and those with subgraphs stay, and so do nodes that make an output of the graph.
    """
    known: dict[Hashable, ir.Node] = {}
    changed = False
    for node in graph:
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
    attributes = []
    for name, attribute in sorted(node.attributes.items()):
        if attribute.type in _GRAPHS:
            return None
        attributes.append((name, attribute.type, _hashable(attribute)))
    return node.op_identifier(), len(node.outputs), tuple(node.inputs), tuple(attributes)


def _hashable(attribute: ir.Attr) -> Hashable:
    if attribute.type == ir.AttributeType.TENSOR:
        tensor = attribute.as_tensor()
        return tensor.dtype, tuple(tensor.shape), tensor.tobytes()
    value = attribute.value
    return tuple(value) if isinstance(value, list | tuple) else value
