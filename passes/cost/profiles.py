"""The figures of each target: what it does in a second.

Where they come from stands beside each. `bench/operator_costs.py` measures them again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Profile:
    """What a target does in a second: multiply-accumulates per class of layer, bytes, nodes.

    dense               k x k, in one group or in groups of at least LANES channels
    pointwise           the same, 1x1
    product             Gemm and MatMul
    thin                groups of fewer than LANES channels, depthwise with more outputs than inputs
    depthwise           by the width of the kernel (its last axis): widths in ascending order, each
                        with its rate; between them the rate is interpolated
    dilated             the share of the rate that is left when a dense kernel is dilated
    dilated_depthwise   the same for a depthwise kernel
    transposed          transposed convolutions with a stride
    transposed_grouped  the same in more than one group
    averages            additions of an AveragePool of channels that fill no whole registers, if
                        these are LANES or more
    bandwidth           bytes that layers read and write
    elementwise         bytes that element-wise nodes read and write
    copies              bytes that Slice, Pad, Concat, Gather and Transpose read and write
    blocks              bytes that DepthToSpace and SpaceToDepth read and write
    samples             numbers that GridSample writes, and that DeformConv samples
    node                seconds for each node, whatever it does
    offset              times the price of an element-wise node for an Add of one number per channel
                        to a map of at least LANES channels
    hard_sigmoid        the same for a HardSigmoid
    slow                operators that take longer than what they are spelled out in, or that not
                        every version reads
    finds               operators that it finds in nodes that spell them out, and runs as one
    fills_inputs        whether the channels that a layer in one group reads are filled up to a
                        multiple of LANES, as those that it writes are
    turned_norm         whether a norm of the channels of a map is faster as a LayerNormalization
                        between two Transposes
    """

    name: str
    dense: float
    pointwise: float
    product: float
    thin: float
    depthwise: tuple[tuple[int, float], ...]
    dilated: float
    dilated_depthwise: float
    transposed: float
    transposed_grouped: float
    averages: float
    bandwidth: float
    elementwise: float
    copies: float
    blocks: float
    samples: float
    node: float
    offset: float = 1.0
    hard_sigmoid: float = 1.0
    slow: tuple[str, ...] = ()
    finds: tuple[str, ...] = ()
    fills_inputs: bool = False
    turned_norm: bool = False


# ONNX Runtime 1.31, float32, one core of an x86 processor with AVX-512; on two cores the rates
# double. A wide depthwise kernel is slow because each column within its reach of the border takes
# a path of its own; dilation costs a dense kernel nothing. In a network a copy also leaves the
# layout that convolutions work in, and comes back to it, and so does an Add of one number per
# channel (a Mul does not): on 64 x 56 x 56 between two layers Mul takes 21 us, Add 70, both 91, and
# one convolution by one tap 21, which is 0.23 of the two; on 96 x 14 x 14 it is 2 of 11. With Mul
# and Add in place of the 14 and 17 of PP-OCRv4 the whole networks take 1.05 and 1.07 of their time.
ORT_CPU = Profile(
    "ort-cpu",
    dense=53e9,
    pointwise=52e9,
    product=50e9,
    thin=8e9,
    depthwise=((1, 42e9), (5, 53e9), (7, 52e9), (9, 32e9), (13, 27e9), (51, 22e9)),
    dilated=1.0,
    dilated_depthwise=0.8,
    transposed=42e9,
    transposed_grouped=1.6e9,
    averages=0.8e9,  # 24 x 56 x 56, 3 x 3: 833 us, as a depthwise layer 25
    bandwidth=70e9,
    elementwise=70e9,
    copies=32e9,
    blocks=3.9e9,  # DepthToSpace; SpaceToDepth runs at twice to four times that
    samples=0.6e9,  # linear; nearest runs at a quarter of that
    node=0.6e-6,
    offset=3.4,
    slow=("Softplus",),  # 5 times the time of Exp, Add, Log
    finds=("Gelu", "LayerNormalization", "RMSNormalization", "Swish"),
    fills_inputs=True,  # 3 x 3, 32 outputs: 17 to 32 inputs take the same time, 36 to 48 do
    turned_norm=True,  # 0.36 of the time
)

# OpenVINO 2026.4, on the same core: what differs by more than a tenth. From 8 taps in a row to 13
# its depthwise kernels slow down more and more; from 14 on they are others, at three times the
# rate. Element-wise nodes become part of the layer in front: they do not tell how fast bytes move.
# On 64 x 56 x 56 behind a layer a Mul takes 7 us, an Add 4, both 10, a convolution by one tap 21.
OPENVINO = replace(
    ORT_CPU,
    name="openvino",
    thin=17e9,
    depthwise=(
        *((1, 45e9), (7, 50e9), (9, 33e9), (11, 30e9), (12, 17e9), (13, 14e9)),
        *((14, 50e9), (51, 65e9)),
    ),
    dilated_depthwise=1.0,
    transposed=50e9,
    transposed_grouped=0.9e9,
    averages=50e9,
    elementwise=220e9,
    copies=50e9,
    blocks=40e9,
    samples=1.0e9,  # nearest; linear runs at half of that
    offset=1.0,
    hard_sigmoid=18.0,  # no part of the layer in front; a HardSwish takes as long as its parts
    # HardSigmoid: 2.3 times the time; others take the same as what they are spelled out in
    slow=("HardSigmoid", "RMSNormalization"),
    finds=(),  # in any order, so that none need be written
    fills_inputs=False,  # 24 -> 32 take 0.8 of the time of 32 -> 32
    turned_norm=False,  # 1.1 to 1.7 times the time of a network of two convolutions and the norm
)

# Not measured: from published figures of TensorRT and PyTorch on an A100, at batch 1. dense and
# pointwise: the slope of latency over work from ResNet-18 to -34 and from VanillaNet-9 to -13.
# depthwise: SLaK, where ordinary kernels run a 51x51 at twice the time of its two strips.
# bandwidth: that of the memory. node: launching a kernel. The rest are cautious guesses.
TRT = Profile(
    "trt",
    dense=8e12,
    pointwise=15e12,
    product=15e12,
    thin=1e12,
    depthwise=((1, 0.5e12), (5, 0.6e12), (51, 1.5e12)),
    dilated=1.0,
    dilated_depthwise=0.5,
    transposed=4e12,
    transposed_grouped=0.2e12,
    averages=0.6e12,
    bandwidth=1.5e12,
    elementwise=1.5e12,
    copies=1e12,
    blocks=1e12,
    samples=0.15e12,
    node=5e-6,
    slow=("RMSNormalization",),
)

# By target. A target that is not here is taken for `default`. CUDA's own kernels have not been
# measured.
PROFILES = {
    "default": ORT_CPU,
    "trt": TRT,
    "trt-rtx": TRT,
    "ort-cuda": TRT,
    "ort-cpu": ORT_CPU,
    "openvino": OPENVINO,
}

# Costs of no machine, which lead to other forms of a graph: what tuning tries besides.
EXTREMES = {
    "few nodes": replace(ORT_CPU, name="few nodes", node=50e-6),
    "little arithmetic": replace(
        ORT_CPU, name="little arithmetic", bandwidth=1e15, copies=1e15, node=0.0
    ),
    "much arithmetic": replace(
        ORT_CPU, name="much arithmetic", bandwidth=ORT_CPU.bandwidth / 8, copies=ORT_CPU.copies / 8
    ),
}
