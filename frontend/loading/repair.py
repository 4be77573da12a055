"""What runtimes accept in a file although ONNX forbids it or says nothing, in the form ONNX has.

- a negative size in a declared shape is an open one, as older exporters write it;
- declared shapes of values between nodes are dropped: they may be false, and follow from the rest;
- nodes stand in an order in which each value is computed before it is read;
- ONNX's own domain is spelled "", and imported once; the graph has a name;
- a Constant has one attribute: the first one is the value, by its type, whatever it is called;
- before IR version 4 each weight had to be listed as an input, which says nothing: runtimes let no
  caller set one. Such a file becomes one of version 4, in which weights are no inputs;
- functions that nothing calls are dropped, since nobody checks what they read.

Nothing is computed, and no native code runs.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from flatfold.errors import InputError

# The attribute of a Constant by its type: FLOAT, INT, STRING, TENSOR, .., SPARSE_TENSOR.
_VALUES = {
    **{1: "value_float", 2: "value_int", 3: "value_string", 4: "value"},
    **{6: "value_floats", 7: "value_ints", 8: "value_strings", 11: "sparse_value"},
}

_WEIGHTS_MAY_BE_INPUTS = 4  # the IR version from which on they need not be


def repair_model(proto: Any, keep_shapes: bool = False) -> None:
    """Bring the graphs and functions of `proto`, at any depth, into the form above, in place.

    Raises `InputError` where nodes read each other in a circle.
    """
    proto.graph.name = proto.graph.name or "model"
    _keep_inputs(proto)
    _drop_uncalled_functions(proto)
    for root in (proto, *proto.functions):
        _name_domain(root.opset_import)
    for root in (proto.graph, *proto.functions):
        for graph in nested_graphs(root):
            if not keep_shapes:
                _drop_shapes(graph)
            _repair_declarations(graph)
            _sort_nodes(graph)
            for node in graph.node:
                if node.domain == "ai.onnx":
                    node.domain = ""
                if node.op_type == "Constant" and not node.domain and node.attribute:
                    _keep_value(node)


def _keep_inputs(proto: Any) -> None:
    """Drop the inputs that are weights, where the version of the file asks for them."""
    if not 0 < proto.ir_version < _WEIGHTS_MAY_BE_INPUTS:
        return
    weights = {tensor.name for tensor in proto.graph.initializer}
    kept = [value.SerializeToString() for value in proto.graph.input if value.name not in weights]
    del proto.graph.input[:]
    for content in kept:
        proto.graph.input.add().ParseFromString(content)
    proto.ir_version = _WEIGHTS_MAY_BE_INPUTS


def _drop_uncalled_functions(proto: Any) -> None:
    called: set[tuple[str, str]] = set()
    pending = [proto.graph]
    while pending:
        nodes = (node for graph in nested_graphs(pending.pop()) for node in graph.node)
        names = {(node.domain, node.op_type) for node in nodes} - called
        called |= names
        pending += [f for f in proto.functions if (f.domain, f.name) in names]
    kept = [f for f in proto.functions if (f.domain, f.name) in called]
    if len(kept) < len(proto.functions):
        contents = [function.SerializeToString() for function in kept]
        del proto.functions[:]
        for content in contents:
            proto.functions.add().ParseFromString(content)


def _keep_value(constant: Any) -> None:
    """Leave a Constant its first attribute alone, as ONNX Runtime does, with the right name."""
    del constant.attribute[1:]
    value = constant.attribute[0]
    value.name = _VALUES.get(value.type, value.name)


def nested_graphs(graph: Any) -> Iterator[Any]:
    """`graph`, or a function, and the graphs inside its nodes."""
    yield graph
    for node in graph.node:
        for inner in _graphs_of(node):
            yield from nested_graphs(inner)


def _graphs_of(node: Any) -> list[Any]:
    return [
        graph
        for attribute in node.attribute
        for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs)
    ]


def _name_domain(imports: Any) -> None:
    """Import each domain once, with "" for "ai.onnx"; those of one domain have one version."""
    versions: dict[str, int] = {}
    for opset in imports:
        domain = "" if opset.domain == "ai.onnx" else opset.domain
        versions.setdefault(domain, opset.version)
    del imports[:]
    for domain, version in versions.items():
        imports.add(domain=domain, version=version)


def _drop_shapes(graph: Any) -> None:
    """Drop the declared shapes of values between nodes."""
    if graph.DESCRIPTOR.name == "GraphProto":
        stored = {tensor.name for tensor in graph.initializer}  # these tell their shapes themselves
        declared = [value for value in graph.value_info if value.name not in stored]
        if len(declared) < len(graph.value_info):
            kept = [value.SerializeToString() for value in declared]
            del graph.value_info[:]
            for content in kept:
                graph.value_info.add().ParseFromString(content)
    for value in graph.value_info:
        if value.type.WhichOneof("value") == "tensor_type":
            value.type.tensor_type.ClearField("shape")


def _repair_declarations(graph: Any) -> None:
    if graph.DESCRIPTOR.name == "GraphProto":
        inputs = {value.name: value for value in graph.input}
        for value in (*graph.output, *graph.value_info):
            if value.name in inputs:  # declared twice: an input has the shape that it is given
                value.type.CopyFrom(inputs[value.name].type)
        for value in (*graph.input, *graph.output):
            _open_negative_sizes(value.type)


def _open_negative_sizes(kind: Any) -> None:
    """Drop the negative sizes in a type, of which the elements of sequences have one too."""
    field = kind.WhichOneof("value")
    if field in ("sequence_type", "optional_type"):
        _open_negative_sizes(getattr(kind, field).elem_type)
    elif field in ("tensor_type", "sparse_tensor_type"):
        for dim in getattr(kind, field).shape.dim:
            if dim.dim_value < 0:
                dim.ClearField("dim_value")


def _sort_nodes(graph: Any) -> None:
    """Sort the nodes of one graph, if need be, each as near to its place as it can be."""
    producer = {name: i for i, node in enumerate(graph.node) for name in node.output if name}
    needs = [{producer[n] for n in names_read(node) if n in producer} for node in graph.node]
    if all(earlier < i for i, found in enumerate(needs) for earlier in found):
        return
    order = _ordered(needs)
    if len(order) < len(needs):
        _refuse_circle(graph.node, needs, set(range(len(needs))) - set(order))
    copies = []
    for i in order:
        copies.append(type(graph.node[i])())
        copies[-1].CopyFrom(graph.node[i])
    del graph.node[:]
    graph.node.extend(copies)


def names_read(node: Any) -> Iterator[str]:
    """The names that a node reads, also those that the graphs inside it read from outside."""
    yield from (name for name in node.input if name)
    for graph in _graphs_of(node):
        own = {value.name for value in (*graph.input, *graph.initializer)}
        own.update(name for inner in graph.node for name in inner.output)
        read = {value.name for value in graph.output}
        read.update(name for inner in graph.node for name in names_read(inner))
        yield from read - own


def _ordered(needs: Sequence[set[int]]) -> list[int]:
    """The nodes that can be sorted: of those that are ready, the first comes first."""
    readers: list[list[int]] = [[] for _ in needs]
    for i, found in enumerate(needs):
        for earlier in found:
            readers[earlier].append(i)
    missing = Counter({i: len(found) for i, found in enumerate(needs)})
    ready = [i for i, found in enumerate(needs) if not found]
    order = []
    while ready:
        i = heapq.heappop(ready)
        order.append(i)
        for reader in readers[i]:
            missing[reader] -= 1
            if not missing[reader]:
                heapq.heappush(ready, reader)
    return order


def _refuse_circle(nodes: Sequence[Any], needs: Sequence[set[int]], left: set[int]) -> None:
    path = [min(left)]
    while path[-1] not in path[:-1]:
        path.append(min(needs[path[-1]] & left))
    circle = path[path.index(path[-1]) + 1 :]
    names = [nodes[i].name or nodes[i].op_type for i in circle[:5]]
    raise InputError(
        f"nodes read each other's outputs in a circle: {', '.join(map(repr, names))}",
        hint="a node can only read what is computed before it; remove one of these inputs",
    )
