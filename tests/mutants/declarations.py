"""Changes of everything but nodes: weights, shapes, types, inputs, outputs and versions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.mutants.draws import Rng, one, size, values


def _change_dims(proto: onnx.ModelProto, rng: Rng) -> None:
    tensors = [tensor for tensor in proto.graph.initializer if tensor.dims]
    if tensors:
        tensor = one(tensors, rng)
        if rng.random() < 0.5:
            tensor.dims[int(rng.integers(len(tensor.dims)))] = size(rng)
        else:
            tensor.dims[:] = [int(n) for n in rng.permutation(np.array(tensor.dims))]


def _change_shape(proto: onnx.ModelProto, rng: Rng) -> None:
    """Change the declared shape of an input, an output or an intermediate value."""
    graph = proto.graph
    value = one([*graph.input, *graph.output, *graph.value_info], rng)
    shape = value.type.tensor_type.shape
    if not shape.dim or rng.random() < 0.2:
        shape.dim.add().dim_value = size(rng)
    elif rng.random() < 0.2:
        shape.dim.pop()
    else:
        shape.dim[int(rng.integers(len(shape.dim)))].dim_value = size(rng)


def _change_type(proto: onnx.ModelProto, rng: Rng) -> None:
    graph, kind = proto.graph, int(rng.integers(0, 27))
    if graph.initializer and rng.random() < 0.5:
        one(graph.initializer, rng).data_type = kind
    else:
        value = one([*graph.input, *graph.output, *graph.value_info], rng)
        value.type.tensor_type.elem_type = kind


def _drop_weight(proto: onnx.ModelProto, rng: Rng) -> None:
    if proto.graph.initializer:
        del proto.graph.initializer[int(rng.integers(len(proto.graph.initializer)))]


def _change_weight(proto: onnx.ModelProto, rng: Rng) -> None:
    """Set special values (NaN, infinite, very large or small), another shape or another type."""
    if not proto.graph.initializer:
        return
    tensor = one(proto.graph.initializer, rng)
    try:
        array = np.array(numpy_helper.to_array(tensor))
    except Exception:  # an earlier change made it unreadable
        return
    if array.dtype != np.float32:
        array = np.where(rng.random(array.shape) < 0.5, array, one((0, 1, 3, -1, 2**40), rng))
        array = array.astype(np.int64)
    elif rng.random() < 0.3:
        shape = [int(n) for n in rng.integers(1, 5, size=int(rng.integers(0, 5)))]
        array = rng.standard_normal(shape).astype(np.float32)
    else:
        value = one((np.nan, np.inf, -np.inf, 0.0, 1e38, 1e-38, 1e-45, -1.0), rng)
        array = np.where(rng.random(array.shape) < 0.5, array, np.float32(value))
    if array.dtype == np.float32 and rng.random() < 0.1:
        array = array.astype(np.float16)
    tensor.CopyFrom(numpy_helper.from_array(np.asarray(array), tensor.name))


def _change_outputs(proto: onnx.ModelProto, rng: Rng) -> None:
    graph = proto.graph
    if rng.random() < 0.3 and graph.output:
        del graph.output[int(rng.integers(len(graph.output)))]
    else:
        name = one(values(proto), rng)
        graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))


def _weight_as_input(proto: onnx.ModelProto, rng: Rng) -> None:
    if proto.graph.initializer:
        tensor = one(proto.graph.initializer, rng)
        proto.graph.input.append(
            helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
        )


def _change_versions(proto: onnx.ModelProto, rng: Rng) -> None:
    if rng.random() < 0.3:
        proto.ir_version = size(rng)
    elif proto.opset_import:
        proto.opset_import[0].version = int(rng.integers(-1, 30))


def _move_into_if(proto: onnx.ModelProto, rng: Rng) -> None:
    """Move the first nodes into both branches of an If."""
    graph = proto.graph
    count = int(rng.integers(1, max(2, len(graph.node))))
    body = helper.make_graph(list(graph.node[:count]), "body", [], [])
    computed = [name for node in graph.node[:count] for name in node.output]
    read = {name for node in graph.node[count:] for name in node.input}
    outputs = [name for name in computed if name in read or name in {v.name for v in graph.output}]
    for name in outputs:
        body.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    graph.initializer.append(numpy_helper.from_array(np.array(bool(rng.random() < 0.5)), "which"))
    node = helper.make_node("If", ["which"], outputs, then_branch=body, else_branch=body)
    del graph.node[:count]
    graph.node.insert(0, node)


DECLARATIONS: list[Callable[[onnx.ModelProto, Rng], None]] = [
    _change_dims,
    _change_shape,
    _change_type,
    _drop_weight,
    _change_weight,
    _change_outputs,
    _weight_as_input,
    _change_versions,
    _move_into_if,
]
