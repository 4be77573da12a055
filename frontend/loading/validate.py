"""Checks that onnx.checker does not make: names with two meanings, an interface that cannot be fed.

Runtimes disagree about which of two things of one name counts, so both are refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from flatfold.errors import InputError
from flatfold.frontend.loading.external_data import tensors_of
from flatfold.frontend.loading.repair import names_read, nested_graphs

if TYPE_CHECKING:
    import onnx


_MOST_AXES = 64  # of an array of NumPy
_RENAME = "a name may have one meaning only: rename or remove the others"


def check_names(proto: onnx.ModelProto) -> None:
    """Raise `InputError` if a name in `proto` could mean two things."""
    imported = {(opset.domain or "ai.onnx", opset.version) for opset in proto.opset_import}
    _require_single("opsets are imported for", [name for name, _ in imported], "the model")
    functions = [f"{f.domain}.{f.name}:{f.overload}" for f in proto.functions]
    _require_single("functions are named", functions, "the model")
    for function in proto.functions:
        where = f"function {function.name!r}"
        computed = [name for node in function.node for name in node.output if name]
        _require_single("node outputs are named", computed, where)
        _require_single("inputs are named", function.input, where)
        _require_disjoint(computed, function.input, where)
    graphs = [graph for root in (proto.graph, *proto.functions) for graph in nested_graphs(root)]
    for graph in graphs:
        _require_text(graph)
        if graph.DESCRIPTOR.name == "GraphProto":
            _check_graph(graph)
        for node in graph.node:
            attributes = [attribute.name for attribute in node.attribute]
            where = f"node {node.name or node.op_type!r}"
            _require_single("attributes are named", attributes, where)


def check_functions(proto: onnx.ModelProto) -> None:
    """Raise `InputError` if a function reads what it is not given."""
    for function in proto.functions:
        known = {*function.input, *(name for node in function.node for name in node.output)}
        unknown = [name for node in function.node for name in names_read(node) if name not in known]
        if unknown:
            raise InputError(
                f"a node reads {unknown[0]!r}, which is no input and which nothing computes",
                where=f"function {function.name!r}",
                hint="export the model again; the file is damaged",
            )


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


def check_interface(graph: onnx.GraphProto) -> None:
    """Raise `InputError` if `graph` has no output, or an input of more axes than arrays have."""
    if not graph.output:
        raise InputError(
            "expected a graph that computes something, found one without outputs",
            hint="declare an output of the graph",
        )
    for value in graph.input:
        axes = len(value.type.tensor_type.shape.dim)
        if axes > _MOST_AXES:
            raise InputError(
                f"expected inputs of at most {_MOST_AXES} axes, found {axes} of {value.name!r}",
                hint="reshape the input inside the graph",
            )


def require_single_data(proto: onnx.ModelProto) -> None:
    """Raise `InputError` for a tensor with data in two fields, of which one is read."""
    for tensor in tensors_of(proto):
        fields = [field.name for field, _ in tensor.ListFields() if field.name.endswith("_data")]
        fields = [name for name in fields if name != "external_data"]
        if len(fields) > 1:
            raise InputError(
                f"weight {tensor.name!r} has data in {len(fields)} fields: {', '.join(fields)}",
                hint="keep the one that is meant",
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
