"""Hide parts of a graph from library code that would change them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import onnx_ir as ir

_GRAPHS = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)


@contextlib.contextmanager
def detach_subgraphs(graph: ir.Graph) -> Iterator[None]:
    """Remove the subgraphs of If, Loop and Scan, which the library would enter."""
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
