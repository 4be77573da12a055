"""Tensors of a model: their sizes in bytes, their arrays, copies of their objects."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from flatfold.errors import InputError

if TYPE_CHECKING:
    import onnx


def tensor_nbytes(tensor: onnx.TensorProto, unfixed: int | None = None) -> int:
    """Bytes of raw data that the tensor's shape and type call for. Raises `InputError`.

    `unfixed` is returned for types whose elements have no fixed size, if given.
    """
    try:
        bits: int = ir.DataType(tensor.data_type).bitwidth
    except (TypeError, ValueError) as error:
        if unfixed is not None:
            return unfixed
        raise refusal(tensor, f"has no fixed-size element type ({tensor.data_type})") from error
    if any(size < 0 for size in tensor.dims):
        raise refusal(tensor, f"has the shape {list(tensor.dims)}")
    count: int = math.prod(tensor.dims)
    return (count * bits + 7) // 8


def refusal(tensor: onnx.TensorProto, finding: str) -> InputError:
    """The error for a weight that cannot be read, `finding` says why."""
    return InputError(
        f"weight {tensor.name!r} {finding}",
        hint="keep weights as plain files in the model's folder; "
        "onnx.save_model(..., save_as_external_data=True) writes them so",
    )


def array_of(
    data: npt.NDArray[np.uint8], dtype: ir.DataType, shape: ir.Shape, name: str
) -> ir.TensorProtocol:
    """The tensor whose little-endian bytes are `data`; the memory is shared."""
    array = data.view(dtype.numpy().newbyteorder("<")).reshape(shape.numpy())
    return ir.Tensor(array, dtype=dtype, shape=shape, name=name)


def own_tensors(model: ir.Model, *, copy: bool = False) -> None:
    """Replace the tensor objects of `model` by new ones, which no other model shares.

    Renaming a weight then has no effect elsewhere. The bytes stay shared where the tensor allows
    it, unless `copy`.
    """
    for graph in model.graphs():
        for value in graph.initializers.values():
            if value.const_value is not None:
                value.const_value = _owned(value.const_value, copy)
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        for name, attribute in list(node.attributes.items()):
            if attribute.type == ir.AttributeType.TENSOR and not attribute.is_ref():
                node.attributes[name] = ir.AttrTensor(name, _owned(attribute.as_tensor(), copy))


def _owned(tensor: ir.TensorProtocol, copy: bool) -> ir.TensorProtocol:
    if isinstance(tensor, ir.LazyTensor) and not copy:
        shape: Any = tensor.shape
        return ir.LazyTensor(tensor.raw, tensor.dtype, shape, name=tensor.name)
    array = tensor.numpy()
    if tensor.dtype == ir.DataType.STRING:
        return ir.StringTensor(array, shape=ir.Shape(array.shape), name=tensor.name)
    owned = np.array(array, copy=True) if copy else array
    return ir.Tensor(owned, dtype=tensor.dtype, name=tensor.name)
