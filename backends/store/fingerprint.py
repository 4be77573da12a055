"""The structural copy of a model, which is hashed to identify the model.

Names of values between nodes, and where weights are stored, do not matter to the function that is
computed, so the copy does not depend on them. Everything else is kept: the interface, the names of
nodes, attributes, functions, comments.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING

from flatfold.errors import InputError

if TYPE_CHECKING:
    import onnx_ir as ir


def structural_copy(model: ir.Model) -> ir.Model:
    """A copy in which each weight is replaced by its hash, and values are numbered in graph order.

    The inputs and outputs of the model keep their names; the bodies of functions are left as they
    are. Raises InputError for a weight without data.
    """
    import onnx_ir as ir

    copy = model.clone()
    graphs = list(copy.graphs())
    for graph in graphs:
        for value in graph.initializers.values():
            if value.const_value is None:
                raise InputError(f"weight {value.name!r} has no data")
            value.const_value = _hashed(value.const_value)
        for node in graph:
            for name, attribute in node.attributes.items():
                if attribute.type == ir.AttributeType.TENSOR:
                    node.attributes[name] = ir.AttrTensor(name, _hashed(attribute.as_tensor()))
    _number(graphs)
    return copy


def _number(graphs: list[ir.Graph]) -> None:
    main = graphs[0]
    interface = {value.name for value in (*main.inputs, *main.outputs)}
    free = (name for n in itertools.count() if (name := f"_{n:06d}") not in interface)
    weights = [(graph, list(graph.initializers.values())) for graph in graphs]
    for graph, _ in weights:
        graph.initializers.clear()  # a number may be the old name of another weight
    numbered: set[ir.Value] = {*main.inputs, *main.outputs}
    for value in _in_order(graphs, weights):
        if value.name and value not in numbered:  # an output without a name is an omitted one
            numbered.add(value)
            value.name = next(free)
    for graph, values in weights:
        for value in sorted(values, key=lambda value: value.name or ""):
            graph.initializers.add(value)


def _in_order(
    graphs: list[ir.Graph], weights: list[tuple[ir.Graph, list[ir.Value]]]
) -> Iterator[ir.Value]:
    """All values in an order that does not depend on names; those that no node reads come last."""
    for graph in graphs:
        yield from graph.inputs
        for node in graph:
            yield from (value for value in (*node.inputs, *node.outputs) if value is not None)
    for graph, values in weights:
        yield from graph.outputs
        yield from values


def _hashed(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    """The SHA-256 of the type, shape and content of a tensor, as a tensor of the same name."""
    import numpy as np
    import onnx_ir as ir

    digest = hashlib.sha256(f"{tensor.dtype.name} {tensor.shape.numpy()}\n".encode())
    array = tensor.numpy()
    if array.dtype.kind == "O":
        digest.update(repr(array.tolist()).encode())
    else:  # hashed in place, without a copy of the weight
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return ir.Tensor(np.frombuffer(digest.digest(), np.uint8), name=tensor.name)
