"""A graph without the bulk of its weights and the made-up names of its values: what to hash.

Values between nodes can be called anything, and weights can be kept anywhere, without a change of
what is computed. Everything else of a model says something to somebody: the interface, the names
of nodes, attributes, functions, comments.
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
    """A copy in which a hash stands for each weight, and values are numbered as they come up.

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
    fresh = (name for n in itertools.count() if (name := f"_{n:06d}") not in interface)
    weights = [(graph, list(graph.initializers.values())) for graph in graphs]
    for graph, _ in weights:
        graph.initializers.clear()  # else a number that is another weight's old name is refused
    done: set[ir.Value] = {*main.inputs, *main.outputs}
    for value in _in_order(graphs, weights):
        if value.name and value not in done:  # an output without a name is one left out
            done.add(value)
            value.name = next(fresh)
    for graph, values in weights:
        for value in sorted(values, key=lambda value: value.name or ""):
            graph.initializers.add(value)


def _in_order(
    graphs: list[ir.Graph], weights: list[tuple[ir.Graph, list[ir.Value]]]
) -> Iterator[ir.Value]:
    """Every value, in an order that no name has a part in; those that no node reads come last."""
    for graph in graphs:
        yield from graph.inputs
        for node in graph:
            yield from (value for value in (*node.inputs, *node.outputs) if value is not None)
    for graph, values in weights:
        yield from graph.outputs
        yield from values


def _hashed(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    """The SHA-256 of type, shape and content, as a small tensor of the same name."""
    import numpy as np
    import onnx_ir as ir

    digest = hashlib.sha256(f"{tensor.dtype.name} {tensor.shape.numpy()}\n".encode())
    array = tensor.numpy()
    if array.dtype.kind == "O":
        digest.update(repr(array.tolist()).encode())
    else:  # in place: no second copy of the weight
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return ir.Tensor(np.frombuffer(digest.digest(), np.uint8), name=tensor.name)
