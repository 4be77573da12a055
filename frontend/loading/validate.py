"""Checks that onnx.checker does not make: names with two meanings, declared shapes that are false.

Runtimes disagree about which of two things of one name counts, so both are refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from flatfold.errors import InputError

if TYPE_CHECKING:
    import onnx


_RENAME = "a name may have one meaning only: rename or remove the others"


def check_names(proto: onnx.ModelProto) -> None:
    """Raise `InputError` if a name in `proto` could mean two things."""
    imported = [opset.domain or "ai.onnx" for opset in proto.opset_import]
    _require_single("opsets are imported for", imported, "the model")
    functions = [f"{f.domain}.{f.name}:{f.overload}" for f in proto.functions]
    _require_single("functions are named", functions, "the model")
    for function in proto.functions:
        where = f"function {function.name!r}"
        computed = [name for node in function.node for name in node.output if name]
        _require_single("node outputs are named", computed, where)
        _require_single("inputs are named", function.input, where)
        _require_disjoint(computed, function.input, where)
    graphs = [graph for root in (proto.graph, *proto.functions) for graph in _nested_graphs(root)]
    for graph in graphs:
        _require_text(graph)
        if graph.DESCRIPTOR.name == "GraphProto":
            _check_graph(graph)
        for node in graph.node:
            attributes = [attribute.name for attribute in node.attribute]
            where = f"node {node.name or node.op_type!r}"
            _require_single("attributes are named", attributes, where)


def _require_text(graph: Any) -> None:
    """Raise `InputError` if a name in a graph or function is not UTF-8, and so bytes here."""
    texts = [graph.name, graph.doc_string]
    for node in graph.node:
        texts += (node.name, node.op_type, node.domain, node.doc_string, *node.input, *node.output)
    if graph.DESCRIPTOR.name == "GraphProto":
        values = (*graph.input, *graph.output, *graph.value_info)
        texts += (part.name for part in (*values, *graph.initializer))
        dims = (dim for value in values for dim in value.type.tensor_type.shape.dim)
        texts += (dim.dim_param for dim in dims)
    for text in texts:
        if isinstance(text, bytes):
            raise InputError(
                f"not a valid ONNX model: a name is not UTF-8: {text!r:.60}",
                hint="export it again, for example with torch.onnx.export",
            )


def _check_graph(graph: onnx.GraphProto) -> None:
    where = f"graph {graph.name!r}"
    stored = [tensor.name for tensor in graph.initializer]
    stored += [tensor.values.name for tensor in graph.sparse_initializer]
    computed = [name for node in graph.node for name in node.output if name]
    inputs = [value.name for value in graph.input]
    for kind, names in (("initializers", stored), ("node outputs", computed), ("inputs", inputs)):
        _require_single(f"{kind} are named", names, where)
    _require_disjoint(computed, {*stored, *inputs}, where)


def _require_single(what: str, names: Sequence[str], where: str) -> None:
    name, count = next(iter(Counter(names).most_common(1)), ("", 0))
    if count > 1:
        raise InputError(f"{count} {what} {name!r}", where=where, hint=_RENAME)


def _require_disjoint(computed: Iterable[str], given: Iterable[str], where: str) -> None:
    shared = set(computed) & set(given)
    if shared:
        raise InputError(
            f"a node's output has the name of an input or initializer: {min(shared)!r}",
            where=where,
            hint=_RENAME,
        )


def _nested_graphs(graph: Any) -> Iterator[Any]:
    """`graph`, or a function, and the graphs inside its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _nested_graphs(attribute.g)
            for inner in attribute.graphs:
                yield from _nested_graphs(inner)


def drop_false_shapes(graph: onnx.GraphProto, without_weights: onnx.ModelProto) -> None:
    """Drop the declared shapes of intermediate values of `graph` that contradict shape inference.

    `without_weights` is a copy of the model without large weights, which is changed. Raises
    `InputError` if an output cannot have its declared shape, which the caller relies on.
    """
    import onnx

    if any(a.name == "ceil_mode" and a.i for node in graph.node for a in node.attribute):
        return  # what onnx infers for a window that hangs over the edge is not what runtimes do
    declared = {value.name: value for value in (*graph.value_info, *graph.output)}
    del without_weights.graph.value_info[:]
    for value in without_weights.graph.output:
        value.type.tensor_type.ClearField("shape")
    try:
        inferred = onnx.shape_inference.infer_shapes(without_weights, data_prop=True).graph
    except Exception:  # then no declaration is known to be false
        return
    possible = {value.name: value for value in (*inferred.value_info, *inferred.output)}
    outputs = {value.name for value in graph.output}
    false = {name for name in declared if _differ(declared[name], possible.get(name))}
    for name in sorted(false & outputs):
        shapes = [_dims(value) for value in (declared[name], possible[name])]
        raise InputError(
            f"output {name!r} is declared as {shapes[0]}, and can only be {shapes[1]}",
            hint="declare the shape that the graph computes, or none",
        )
    kept = [value for value in graph.value_info if value.name not in false]
    if false:
        del graph.value_info[:]
        graph.value_info.extend(kept)


def _differ(declared: onnx.ValueInfoProto, inferred: onnx.ValueInfoProto | None) -> bool:
    """Whether the ranks differ, or two sizes that are both known."""
    if inferred is None:
        return False
    before, after = _dims(declared), _dims(inferred)
    if before is None or after is None:
        return False
    return len(before) != len(after) or any(
        isinstance(a, int) and isinstance(b, int) and a != b
        for a, b in zip(before, after, strict=True)
    )


def _dims(value: onnx.ValueInfoProto) -> list[Any] | None:
    """The sizes of `value`: numbers, names, None if unknown; None if not even the rank is known."""
    if not value.type.HasField("tensor_type") or not value.type.tensor_type.HasField("shape"):
        return None
    return [
        dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None
        for dim in value.type.tensor_type.shape.dim
    ]
