"""Take parts of a graph out of the way while a library that would harm them goes over it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import onnx_ir as ir

_GRAPHS = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
_APART = "flatfold.apart"  # no model imports it, and folding leaves alone what is not imported


@contextlib.contextmanager
def overridable_hidden(graph: ir.Graph) -> Iterator[None]:
    """An initializer that is also an input is only a default; folding must not see its value."""
    defaults = [(v, v.const_value) for v in graph.inputs if v.const_value is not None]
    try:
        for value, _ in defaults:
            value.const_value = None
        yield
    finally:
        for value, default in defaults:
            value.const_value = default


@contextlib.contextmanager
def bodies_detached(graph: ir.Graph) -> Iterator[None]:
    """Take the bodies off If, Loop and Scan, so that folding neither enters nor inlines them."""
    bodies = [
        (node, name, attribute)
        for node in graph
        for name, attribute in node.attributes.items()
        if attribute.type in _GRAPHS
    ]
    try:
        for node, name, _ in bodies:
            del node.attributes[name]
        yield
    finally:
        for node, name, attribute in bodies:
            node.attributes[name] = attribute


@contextlib.contextmanager
def casts_set_apart(graph: ir.Graph) -> Iterator[None]:
    """A CastLike may say how to round and to saturate; folding makes a Cast of it that does not."""
    casts = [
        node
        for node in graph
        if (node.op_type, node.domain) == ("CastLike", "") and node.attributes
    ]
    try:
        for node in casts:
            node.domain = _APART
        yield
    finally:
        for node in casts:
            node.domain = ""
