"""Readers disagree about which of two things of one name counts, so there may be none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from flatfold.errors import InputError

if TYPE_CHECKING:
    import onnx


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


def drop_false_shapes(graph: onnx.GraphProto, skeleton: onnx.ModelProto) -> None:
    """Drop what `graph` declares of a value between that cannot be so; nobody would run it so.

    `skeleton` is the model without large weights, and changed here. Raises `InputError` where an
    output cannot have the shape that is declared: that is a promise to the caller.
    """
    import onnx

    if any(a.name == "ceil_mode" and a.i for node in graph.node for a in node.attribute):
        return  # what onnx infers for a window that hangs over the edge is not what runtimes do
    declared = {value.name: value for value in (*graph.value_info, *graph.output)}
    del skeleton.graph.value_info[:]
    for value in skeleton.graph.output:
        value.type.tensor_type.ClearField("shape")
    try:
        inferred = onnx.shape_inference.infer_shapes(skeleton, data_prop=True).graph
    except Exception:  # then nothing is known to be false
        return
    found = {value.name: value for value in (*inferred.value_info, *inferred.output)}
    outputs = {value.name for value in graph.output}
    false = {name for name in declared if _differ(declared[name], found.get(name))}
    for name in sorted(false & outputs):
        shapes = [_dims(value) for value in (declared[name], found[name])]
        raise InputError(f"output {name!r} is declared as {shapes[0]}, and can only be {shapes[1]}")
    kept = [value for value in graph.value_info if value.name not in false]
    if false:
        del graph.value_info[:]
        graph.value_info.extend(kept)


def _differ(declared: onnx.ValueInfoProto, found: onnx.ValueInfoProto | None) -> bool:
    """Whether the ranks differ, or two sizes that are both known."""
    if found is None:
        return False
    mine, other = _dims(declared), _dims(found)
    if mine is None or other is None:
        return False
    return len(mine) != len(other) or any(
        isinstance(a, int) and isinstance(b, int) and a != b
        for a, b in zip(mine, other, strict=True)
    )


def _dims(value: onnx.ValueInfoProto) -> list[Any] | None:
    """Its sizes: a number, a name, or None where there is neither; None where no rank is known."""
    if not value.type.HasField("tensor_type") or not value.type.tensor_type.HasField("shape"):
        return None
    return [
        dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None
        for dim in value.type.tensor_type.shape.dim
    ]
