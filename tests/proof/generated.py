"""Random training blocks: parallel convolutions and norms that are added, many to a graph."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

IN_ONE = 50  # blocks that share a graph, each with an input and an output of its own


class Blocks:
    """Draws blocks into one graph; the seed alone decides what is in a block."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []

    def model(self, count: int = IN_ONE) -> onnx.ModelProto:
        for number in range(count):
            self._block(f"b{number}")
        graph = helper.make_graph(self.nodes, "blocks", self.inputs, self.outputs, self.constants)
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
        proto.ir_version = 8
        return proto

    def _block(self, name: str) -> None:
        pick, self.name = self.rng.choice, name
        stride = int(pick([1, 1, 2]))
        group = int(pick([1, 1, 2, 4]))
        channels = group * int(self.rng.integers(1, 4))
        outputs = channels if self.rng.random() < 0.6 else group * int(self.rng.integers(1, 4))
        sizes = [int(n) for n in self.rng.integers(5, 12, 2)]
        x = self._value(self.inputs, f"{name}.x", [1, channels, *sizes])
        arms = [
            self._arm(x, f"{name}.{arm}", channels, outputs, group, stride)
            for arm in range(self.rng.integers(1, 6))
        ]
        total = arms[0]
        for number, arm in enumerate(arms[1:]):
            kind = "Sub" if self.rng.random() < 0.1 else "Add"
            total = self._node(kind, [total, arm], f"{name}.sum{number}")
        self._node("Relu", [total], f"{name}.y")
        self._value(self.outputs, f"{name}.y", [1, outputs, *(-(-n // stride) for n in sizes)])

    def _arm(self, x: str, name: str, channels: int, outputs: int, group: int, stride: int) -> str:
        """A norm alone where shapes allow, else a convolution that most often has a norm."""
        if channels == outputs and stride == 1 and self.rng.random() < 0.25:
            return self._norm(x, f"{name}.same", outputs)
        kernel = [int(k) for k in self.rng.choice([1, 1, 2, 3, 3, 3, 4, 5, 7], 2)]
        if self.rng.random() < 0.7:
            kernel[1] = kernel[0]
        dilation = int(self.rng.choice([1, 1, 1, 2]))
        groups = group if self.rng.random() < 0.7 else 1
        weight = self.rng.standard_normal((outputs, channels // groups, *kernel))
        parts = [weight / np.sqrt(weight[0].size)]
        parts += [self.rng.standard_normal(outputs)] if self.rng.random() < 0.4 else []
        y = self._node(
            "Conv",
            [x, *(self._constant(part) for part in parts)],
            f"{name}.conv",
            group=groups,
            strides=[stride] * 2,
            dilations=[dilation] * 2,
            pads=[dilation * (k - 1) // 2 for k in kernel]
            + [dilation * (k - 1) - dilation * (k - 1) // 2 for k in kernel],
        )
        return self._norm(y, f"{name}.norm", outputs) if self.rng.random() < 0.9 else y

    def _norm(self, x: str, name: str, channels: int) -> str:
        """Its scales go from 1e-4 to 1e2, channel by channel, and some are negative."""
        scale = 10 ** self.rng.uniform(-4, 2, channels) * self.rng.choice([1, 1, 1, -1], channels)
        variance = 10 ** self.rng.uniform(-3, 2, channels)
        beta, mean = self.rng.normal(0, 1, channels), self.rng.normal(0, 1, channels)
        parts = [scale * np.sqrt(variance), beta, mean, variance]
        return self._node("BatchNormalization", [x, *map(self._constant, parts)], name)

    def _node(self, kind: str, inputs: list[str], name: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def _constant(self, array: np.ndarray) -> str:
        name = f"{self.name}.c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(array.astype(np.float32), name))
        return name

    def _value(self, values: list[onnx.ValueInfoProto], name: str, shape: list[int]) -> str:
        values.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape))
        return name
