"""Readers disagree about which of two things of one name counts, so there may be none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from flatfold.errors import InputError

if TYPE_CHECKING:
    import onnx

__all__ = ["check_names"]


def check_names(proto: onnx.ModelProto) -> None:
    """Raise `InputError` where a name in `proto` could mean two things."""
    imported = [opset.domain or "ai.onnx" for opset in proto.opset_import]
    _require_single("opsets are imported for", imported, "the model")
    functions = [f"{f.domain}.{f.name}:{f.overload}" for f in proto.functions]
    _require_single("functions are named", functions, "the model")
    for function in proto.functions:
        where = f"function {function.name!r}"
        made = [name for node in function.node for name in node.output if name]
        _require_single("node outputs are named", made, where)
        _require_single("inputs are named", function.input, where)
        _require_apart(made, function.input, where)
    bodies = [body for root in (proto.graph, *proto.functions) for body in _bodies(root)]
    for body in bodies:
        if body.DESCRIPTOR.name == "GraphProto":
            _check_graph(body)
        for node in body.node:
            attributes = [attribute.name for attribute in node.attribute]
            where = f"node {node.name or node.op_type!r}"
            _require_single("attributes are named", attributes, where)


def _check_graph(graph: onnx.GraphProto) -> None:
    where = f"graph {graph.name!r}"
    stored = [tensor.name for tensor in graph.initializer]
    stored += [tensor.values.name for tensor in graph.sparse_initializer]
    made = [name for node in graph.node for name in node.output if name]
    given = [value.name for value in graph.input]
    for kind, names in (("initializers", stored), ("node outputs", made), ("inputs", given)):
        _require_single(f"{kind} are named", names, where)
    _require_apart(made, {*stored, *given}, where)


def _require_single(what: str, names: Sequence[str], where: str) -> None:
    name, count = next(iter(Counter(names).most_common(1)), ("", 0))
    if count > 1:
        raise InputError(f"{count} {what} {name!r}", where=where)


def _require_apart(made: Iterable[str], given: Iterable[str], where: str) -> None:
    both = set(made) & set(given)
    if both:
        raise InputError(
            f"a node's output has the name of an input or initializer: {min(both)!r}", where=where
        )


def _bodies(body: Any) -> Iterator[Any]:
    """`body`, a graph or a function, and the graphs inside its nodes."""
    yield body
    for node in body.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _bodies(attribute.g)
            for inner in attribute.graphs:
                yield from _bodies(inner)
