"""Tensors of a model that are its own."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

__all__ = ["own_tensors"]


def own_tensors(model: ir.Model, *, copy: bool = False) -> None:
    """Give `model` tensor objects of its own, so that renaming a weight is seen by nobody else.

    The bytes stay shared where the tensor allows it, unless `copy`.
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
    array = tensor.numpy()
    if tensor.dtype == ir.DataType.STRING:
        return ir.StringTensor(array, shape=ir.Shape(array.shape), name=tensor.name)
    owned = np.array(array, copy=True) if copy else array
    return ir.Tensor(owned, dtype=tensor.dtype, name=tensor.name)
