"""A model in double precision, on the ONNX reference evaluator."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from tests.fuzz.sketch import Array, Rejected
from tests.pools import AveragePool, MaxPool

FLOAT, DOUBLE = TensorProto.FLOAT, TensorProto.DOUBLE
RESIZING = ("Resize", "Upsample")  # whose scales are weights of no kind


class BatchNormalization(OpRun):
    """The evaluator's own takes the statistics of the batch before opset 14."""

    def _run(self, x, scale, shift, mean, variance, epsilon=None, **_):
        scale, shift, mean, variance = (
            part.reshape(-1, *[1] * (x.ndim - 2)) for part in (scale, shift, mean, variance)
        )
        epsilon = 1e-5 if epsilon is None else epsilon
        return (scale * (x - mean) / np.sqrt(variance + epsilon) + shift,)


OPERATORS = [AveragePool, BatchNormalization, MaxPool]


def in_double(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same model with float64 wherever it has float32."""
    model = _copy(model)
    _double_graph(model.graph)
    for function in model.functions:
        _double_nodes(function.node)
    return model


def evaluate(model: onnx.ModelProto, feeds: dict[str, Array]) -> list[Array]:
    """The outputs of a model in double. Raises Rejected where the evaluator cannot run it."""
    wanted = {value.name for value in model.graph.input}
    doubled = {
        name: array.astype(np.float64) if array.dtype == np.float32 else array
        for name, array in feeds.items()
        if name in wanted
    }
    try:
        with np.errstate(all="ignore"):
            evaluator = ReferenceEvaluator(model, new_ops=OPERATORS)
            return [np.asarray(y) for y in evaluator.run(None, doubled)]
    except Exception as why:
        raise Rejected(f"{type(why).__name__}: {str(why)[:200]}") from None


def perturbed(model: onnx.ModelProto, rng: np.random.Generator, size: float) -> onnx.ModelProto:
    """Each weight moved by the part `size` of itself, up or down."""
    model = _copy(model)
    sizes = {name for node in model.graph.node if node.op_type in RESIZING for name in node.input}
    sizes |= {node.input[1] for node in model.graph.node if node.op_type == "Pow"}
    for tensor in _tensors(model):
        if tensor.data_type == DOUBLE and tensor.name not in sizes:
            array = numpy_helper.to_array(tensor)
            signs = rng.choice([-1.0, 1.0], array.shape)
            moved = np.asarray(array * (1 + size * signs))
            tensor.CopyFrom(numpy_helper.from_array(moved, tensor.name))
    return model


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def _tensors(model: onnx.ModelProto) -> Iterable[onnx.TensorProto]:
    graphs = [model.graph]
    while graphs:
        graph = graphs.pop()
        yield from graph.initializer
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    yield attribute.t
                if attribute.HasField("g"):
                    graphs.append(attribute.g)
    for function in model.functions:
        for node in function.node:
            yield from (a.t for a in node.attribute if a.HasField("t"))


def _double_graph(graph: onnx.GraphProto) -> None:
    for tensor in graph.initializer:
        _double_tensor(tensor)
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.tensor_type.elem_type == FLOAT:
            value.type.tensor_type.elem_type = DOUBLE
    _double_nodes(graph.node)


def _double_nodes(nodes: Iterable[onnx.NodeProto]) -> None:
    for node in nodes:
        if node.op_type == "ConstantOfShape" and not node.attribute:
            zero = numpy_helper.from_array(np.zeros(1, np.float32))
            node.attribute.append(helper.make_attribute("value", zero))
        for attribute in node.attribute:
            if attribute.HasField("t"):
                _double_tensor(attribute.t)
            if attribute.HasField("g"):
                _double_graph(attribute.g)
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == FLOAT:
                attribute.i = DOUBLE
            if node.op_type == "Constant" and attribute.name in ("value_float", "value_floats"):
                numbers = attribute.f if attribute.name == "value_float" else attribute.floats
                tensor = numpy_helper.from_array(np.array(numbers, np.float64))
                attribute.CopyFrom(helper.make_attribute("value", tensor))


def _double_tensor(tensor: onnx.TensorProto) -> None:
    if tensor.data_type == FLOAT:
        array = numpy_helper.to_array(tensor).astype(np.float64)
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
