"""The plainest graph that computes what a record says: rounded values in front of each layer."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from flatfold.passes.quantization.record import Quantization
from flatfold.quantizing.layers import layers_of

READING = ("Add", "AveragePool", "Concat", "GlobalAveragePool")


def plain_writer(codes: str) -> Callable[[ir.Model, Quantization], ir.Model]:
    """Writes Q/DQ in front of layers and sums, with weights and biases as float32 constants."""

    def write(model: ir.Model, quantization: Quantization) -> ir.Model:
        copy = model.clone()
        rounded: dict[ir.Value, ir.Value] = {}
        layers = {layer.node: layer for layer in layers_of(copy)}
        for node in list(copy.graph):
            layer = layers.get(node)
            if layer is not None and layer.name in quantization.weights:
                weight = quantization.weights[layer.name].weight()
                node.replace_input_with(1, _constant(copy, f"{layer.name}.weight", weight))
                if (bias := quantization.biases.get(layer.name)) is not None:
                    value = _constant(copy, f"{layer.name}.bias", bias.astype(np.float32))
                    if len(node.inputs) > 2:
                        node.replace_input_with(2, value)
                    else:
                        node.resize_inputs(3)
                        node.replace_input_with(2, value)
                places = [0]
            elif node.op_type in READING:
                places = list(range(len(node.inputs)))
            else:
                continue
            for index in places:
                value = node.inputs[index]
                limits = quantization.ranges.get(value.name or "")
                if limits is not None and value.const_value is None:
                    if value not in rounded:
                        rounded[value] = _rounded(copy, value, *limits.grid(codes), codes)
                    node.replace_input_with(index, rounded[value])
        copy.graph.sort()
        return copy

    return write


def _constant(model: ir.Model, name: str, array: np.ndarray) -> ir.Value:
    value = ir.Value(
        name=name,
        shape=ir.Shape(array.shape),
        type=ir.TensorType(ir.DataType.from_numpy(array.dtype)),
        const_value=ir.Tensor(array, name=name),
    )
    model.graph.initializers.add(value)
    return value


def _rounded(
    model: ir.Model, value: ir.Value, scale: np.float32, zero: int, codes: str
) -> ir.Value:
    one = _constant(model, f"{value.name}.scale", np.asarray(scale))
    two = _constant(model, f"{value.name}.zero", np.asarray(zero, np.dtype(codes)))
    store = ir.node("QuantizeLinear", [value, one, two], name=f"{value.name}.store")
    load = ir.node("DequantizeLinear", [store.outputs[0], one, two], name=f"{value.name}.load")
    store.outputs[0].name, load.outputs[0].name = f"{value.name}.codes", f"{value.name}.rounded"
    store.outputs[0].type = ir.TensorType(two.dtype)
    load.outputs[0].type, load.outputs[0].shape = value.type, value.shape
    store.outputs[0].shape = value.shape
    model.graph.extend([store, load])
    return load.outputs[0]
