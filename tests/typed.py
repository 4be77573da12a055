"""Networks in half precision: float32 graphs with another type inside, and Casts at their ends."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from flatfold.proof.network.arithmetic import retype
from tests.nets import Net

SINGLE, HALF, BRAIN = ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16


def repvgg(shape=(1, 16, 14, 13), blocks=3, gain=1.0) -> ir.Model:
    """Blocks relu(BN(conv3x3) + BN(conv1x1) + BN) in float32; each multiplies by about `gain`."""
    net = Net(shape, dtype=np.float32, opset=22)
    x, c = net.x, shape[1]
    for _ in range(blocks):
        square, point = net.conv(x, c, c, (3, 3)), net.conv(x, c, c, (1, 1))
        y = net.op("Add", net.op("Add", net.bn(square, c), net.bn(point, c)), net.bn(x, c))
        x = net.op("Relu", net.op("Mul", y, net.const(np.array(gain / 8))))
    return ir.from_proto(net.model(x))


def typed(model: ir.Model, dtype: ir.DataType, ends: bool = True) -> ir.Model:
    """A copy of `model` computed in `dtype`; with `ends`, its inputs and outputs stay float32."""
    copy = model.clone()
    graph = copy.graph
    retype(graph, {SINGLE: dtype})
    if not ends:
        return copy
    for value in [v for v in graph.inputs if v.dtype == dtype]:
        uses = tuple(value.uses())
        cast = _cast(value, dtype)
        value.type = ir.TensorType(SINGLE)
        for node, index in uses:
            node.replace_input_with(index, cast.outputs[0])
        graph.insert_before(graph[0], [cast])
    for place, value in enumerate(graph.outputs):
        if value.dtype == dtype:
            cast = _cast(value, SINGLE)
            cast.outputs[0].name, value.name = value.name, f"{value.name}_half"
            graph.append(cast)
            graph.outputs[place] = cast.outputs[0]
    return copy


def _cast(value: ir.Value, dtype: ir.DataType) -> ir.Node:
    node = ir.node("Cast", [value], {"to": int(dtype)})
    node.outputs[0].type, node.outputs[0].shape = ir.TensorType(dtype), value.shape
    return node


def with_weight(model: ir.Model, layer: int, operand: int, change) -> ir.Model:
    """A copy in which `change` was applied to a constant of the layer: 1 the weight, 2 the bias."""
    copy = model.clone()
    layers = [node for node in copy.graph if node.op_type in ("Conv", "Gemm")]
    value = layers[layer].inputs[operand]
    array = change(value.const_value.numpy().astype(np.float32))
    array = array.astype(value.const_value.dtype.numpy())
    value.const_value = ir.Tensor(array, name=value.name)
    return copy


def layer_count(model: ir.Model) -> int:
    return sum(node.op_type in ("Conv", "Gemm") for node in model.graph)


def in_coarser_type(model: ir.Model, layer: int, coarser: ir.DataType) -> ir.Model:
    """A copy whose layer of that number has weights, input and output in a coarser type."""
    copy = with_weight(model, layer, 1, lambda w: w.astype(coarser.numpy()).astype(np.float32))
    node = [node for node in copy.graph if node.op_type in ("Conv", "Gemm")][layer]
    for value in (node.inputs[0], node.outputs[0]):
        uses = [use for use in value.uses() if value is node.outputs[0] or use.node is node]
        there = _cast(value, coarser)
        back = _cast(there.outputs[0], value.dtype)
        for reader, index in uses:
            reader.replace_input_with(index, back.outputs[0])
        copy.graph.insert_after(value.producer(), [there, back])
    return copy
