"""How an engine wants a quantised graph to be written, so that it computes on codes.

All engines read QuantizeLinear and DequantizeLinear, and each runs an operator on codes only where
they stand around it as it expects. What one runs 3 times faster another runs 2 times slower.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import onnx_ir as ir

# Operators that hand codes on, with the scale that these have.
MOVING = frozenset({"Flatten", "Gather", "MaxPool", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})


@dataclass(frozen=True)
class Dialect:
    """What one engine expects.

    activations: "uint8", with any zero point (0 behind a Relu), or "int8", with zero point 0
    bias: "int32", in codes of scale (that of what is read) x (that of the weights), or "float"
    layers: the operators with weights that it runs on codes
    operators: the others
    ends: the layers that must write codes, too, so that they compute on codes
    per_channel: whether weights have a scale for each output channel
    depthwise_taps: the most that a kernel of a depthwise convolution may have; it is faster in
        float above, and with more outputs than inputs
    """

    name: str
    activations: str
    bias: str
    layers: frozenset[str]
    operators: frozenset[str]
    ends: frozenset[str] = frozenset()
    per_channel: bool = True
    depthwise_taps: int | None = None

    def takes(self, layer: ir.Node) -> bool:
        """Whether the engine runs a layer with constant weights on codes, faster than in float."""
        if layer.op_type not in self.layers:
            return False
        groups, weight = layer.attributes.get_int("group", 1), layer.inputs[1]
        if self.depthwise_taps is None or groups == 1 or weight is None or weight.shape is None:
            return True
        outputs, inputs, *kernel = (int(size) for size in weight.shape)  # type: ignore[arg-type]
        is_plain = outputs == groups and math.prod(kernel) <= self.depthwise_taps
        return inputs > 1 or is_plain


# Its QLinear operators, see qdq_selector_action_transformer.cc in its sources. A convolution is one
# of them if codes come and go; a product needs none behind it. With a bias in float it stays float.
ORT_CPU = Dialect(
    name="ort-cpu",
    activations="uint8",
    bias="int32",
    layers=frozenset({"Conv", "Gemm", "MatMul"}),
    operators=MOVING
    | {"Add", "AveragePool", "Concat", "GlobalAveragePool", "LeakyRelu", "Mul", "Sigmoid"},
    ends=frozenset({"Conv"}),
    depthwise_taps=49,  # for 7 x 7 with two outputs for each input 6.7 times the time of float
)
# It adds to the sums of a convolution before they are rounded to codes, and computes a gate as fast
# in float.
OPENVINO = Dialect(
    name="openvino",
    activations="uint8",
    bias="float",
    layers=frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"}),
    operators=MOVING | {"AveragePool", "Concat", "GlobalAveragePool"},
    depthwise_taps=49,  # 51 x 5 takes 1.4 times the time of float
)
TENSORRT = Dialect(
    name="trt",
    activations="int8",
    bias="float",
    layers=frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"}),
    operators=MOVING | {"Add", "AveragePool", "Concat", "GlobalAveragePool"},
)

DIALECTS = {
    "openvino": OPENVINO,
    "ort-cpu": ORT_CPU,
    "trt": TENSORRT,
    "trt-rtx": TENSORRT,
}
