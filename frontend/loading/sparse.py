"""Sparse weights, made dense: the rest of flatfold, and most runtimes, have dense ones only."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from flatfold.errors import InputError
from flatfold.frontend.loading.repair import nested_graphs

if TYPE_CHECKING:
    import onnx


_ALWAYS = 2**28  # bytes that dense weights may have together, however few are stored
_GROWTH = 64  # bytes that they may have more for each one stored
_LARGEST_ELEMENT = 8  # bytes, of the types counted here


def make_dense(proto: onnx.ModelProto) -> None:
    """Replace sparse initializers and Constants of `proto`, at any depth, by dense ones, in place.

    Raises `InputError` for one that is malformed, or where all together would be too large.
    """
    found = list(_sparse_tensors(proto))
    if not found:
        return
    total = sum(_LARGEST_ELEMENT * math.prod(max(n, 0) for n in t.dims) for t in found)
    if total > (most := _ALWAYS + _GROWTH * sum(tensor.ByteSize() for tensor in found)):
        raise InputError(
            f"the sparse weights call for {total} bytes when made dense, and {most} are allowed",
            hint="store them as dense weights",
        )
    for root in (proto.graph, *proto.functions):
        for graph in nested_graphs(root):
            _make_graph_dense(graph)


def _sparse_tensors(proto: onnx.ModelProto) -> Iterator[onnx.SparseTensorProto]:
    for root in (proto.graph, *proto.functions):
        for graph in nested_graphs(root):
            if graph.DESCRIPTOR.name == "GraphProto":
                yield from graph.sparse_initializer
            for node in graph.node:
                yield from (a.sparse_tensor for a in _sparse_values(node))


def _sparse_values(node: Any) -> list[Any]:
    if node.op_type != "Constant":
        return []
    return [a for a in node.attribute if a.name == "sparse_value" and a.HasField("sparse_tensor")]


def _make_graph_dense(graph: Any) -> None:
    import onnx

    if graph.DESCRIPTOR.name == "GraphProto" and graph.sparse_initializer:
        graph.initializer.extend(_dense(sparse) for sparse in graph.sparse_initializer)
        del graph.sparse_initializer[:]
    for node in graph.node:
        for attribute in _sparse_values(node):
            dense = onnx.helper.make_attribute("value", _dense(attribute.sparse_tensor))
            attribute.CopyFrom(dense)


def _dense(sparse: onnx.SparseTensorProto) -> onnx.TensorProto:
    import onnx

    if any(size < 0 for size in sparse.dims):
        raise _refusal(sparse, f"has the shape {list(sparse.dims)}")
    try:
        values = onnx.numpy_helper.to_array(sparse.values).reshape(-1)
        indices = onnx.numpy_helper.to_array(sparse.indices)
    except Exception as error:
        raise _refusal(sparse, f"cannot be read: {error}") from error
    dense = np.zeros(math.prod(sparse.dims), values.dtype)
    dense[_places(sparse, indices, len(values))] = values
    return onnx.numpy_helper.from_array(dense.reshape(tuple(sparse.dims)), sparse.values.name)


def _places(
    sparse: onnx.SparseTensorProto, indices: npt.NDArray[Any], count: int
) -> npt.NDArray[np.int64]:
    """Where the stored values are in the flat dense array; the indices may be flat or per axis."""
    shape = tuple(sparse.dims)
    per_axis = indices.ndim == 2 and indices.shape == (count, len(shape))
    if not (per_axis or indices.shape == (count,)) or indices.dtype != np.int64:
        raise _refusal(sparse, f"has {count} values and indices of shape {list(indices.shape)}")
    limits: Any = np.array(shape, np.int64) if per_axis else math.prod(shape)
    if count and (np.any(indices < 0) or np.any(indices >= limits)):
        raise _refusal(sparse, f"has an index outside its shape {list(shape)}")
    flat = np.ravel_multi_index(tuple(indices.T), shape) if per_axis and count else indices
    places = np.asarray(flat, np.int64).reshape(-1)[:count]
    if len(np.unique(places)) != count:
        raise _refusal(sparse, "has two values at one index")
    return places


def _refusal(sparse: onnx.SparseTensorProto, finding: str) -> InputError:
    return InputError(
        f"sparse weight {sparse.values.name!r} {finding}", hint="store it as a dense weight"
    )
