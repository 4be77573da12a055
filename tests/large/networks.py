"""A network of any size in bytes, written to disk layer by layer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CHANNELS = 1280
LAYER = CHANNELS * CHANNELS * 9 * 4  # bytes of one weight
STATISTICS = ("scale", "shift", "mean", "var")


def write(folder: Path, layers: int) -> Path:
    """Write `layers` times Conv, BatchNormalization and Relu; all weights are in one file."""
    rng = np.random.default_rng(0)
    block = rng.standard_normal(LAYER // 4).astype(np.float32) / np.float32(np.sqrt(CHANNELS * 9))
    nodes, weights, value = [], [], "x"
    with (folder / "weights.bin").open("wb") as file:
        for layer in range(layers):
            weights.append(_external(f"w{layer}", layer * LAYER))
            np.roll(block, layer).tofile(file)
            for name in STATISTICS:
                array = 0.5 + rng.random(CHANNELS).astype(np.float32)
                weights.append(numpy_helper.from_array(array, f"{name}{layer}"))
            nodes += _layer(layer, value, "y" if layer == layers - 1 else f"r{layer}")
            value = f"r{layer}"
    image = [1, CHANNELS, 6, 6]
    graph = helper.make_graph(
        nodes,
        "large",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, image)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, image)],
        weights,
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    path = folder / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


def _external(name: str, offset: int) -> TensorProto:
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[CHANNELS, CHANNELS, 3, 3])
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "weights.bin"), ("offset", offset), ("length", LAYER)):
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def _layer(layer: int, source: str, result: str) -> list[onnx.NodeProto]:
    statistics = [f"{name}{layer}" for name in STATISTICS]
    return [
        helper.make_node("Conv", [source, f"w{layer}"], [f"c{layer}"], pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", [f"c{layer}", *statistics], [f"n{layer}"]),
        helper.make_node("Relu", [f"n{layer}"], [result]),
    ]
