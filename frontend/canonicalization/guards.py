"""Hide parts of a graph from constant folding and shape inference that these would change."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import onnx_ir as ir

_GRAPHS = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
_UNKNOWN_DOMAIN = "flatfold.protected"  # folding skips operators of domains no model imports


@contextlib.contextmanager
def hide_overridable_defaults(graph: ir.Graph) -> Iterator[None]:
    """Hide the values of initializers that are also inputs: the caller may override them."""
    defaults = [(v, v.const_value) for v in graph.inputs if v.const_value is not None]
    try:
        for value, _ in defaults:
            value.const_value = None
        yield
    finally:
        for value, default in defaults:
            value.const_value = default


@contextlib.contextmanager
def detach_subgraphs(graph: ir.Graph) -> Iterator[None]:
    """Remove the subgraphs of If, Loop and Scan, which folding would enter and inline."""
    subgraphs = [
        (node, name, attribute)
        for node in graph
        for name, attribute in node.attributes.items()
        if attribute.type in _GRAPHS
    ]
    try:
        for node, name, _ in subgraphs:
            del node.attributes[name]
        yield
    finally:
        for node, name, attribute in subgraphs:
            node.attributes[name] = attribute


@contextlib.contextmanager
def protect_castlike(graph: ir.Graph) -> Iterator[None]:
    """Hide each CastLike with attributes: folding makes a Cast of it and loses the attributes.

    They say how to round and to saturate.
    """
    casts = [
        node
        for node in graph
        if (node.op_type, node.domain) == ("CastLike", "") and node.attributes
    ]
    try:
        for node in casts:
            node.domain = _UNKNOWN_DOMAIN
        yield
    finally:
        for node in casts:
            node.domain = ""
