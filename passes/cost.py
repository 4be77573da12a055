"""What a piece of graph costs on a target: whether a rewrite pays is decided here and only here.

    seconds = nodes * overhead + macs / rate(kind) + bytes / bandwidth

for one image. The figures of a `Profile` are round numbers measured by bench/operator_costs.py;
decisions depend on their ratios. Unknown spatial sizes count as `ASSUMED_SIZE`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from flatfold.passes.geometry import Geometry, Sizes

ASSUMED_SIZE = 28
BYTES = 4


@dataclass(frozen=True)
class Profile:
    """Speed of a target per class of operator: multiply-accumulates, bytes and nodes a second."""

    name: str
    dense: float
    depthwise: float
    bandwidth: float
    node: float


# `default`: ONNX Runtime 1.31 on two cores of an x86 processor with AVX-512.
PROFILES = {
    "default": Profile("default", dense=100e9, depthwise=60e9, bandwidth=60e9, node=1e-6),
}


@dataclass(frozen=True)
class Cost:
    """Cost of some nodes for one image; adds up."""

    nodes: int = 0
    macs: int = 0
    parameters: int = 0
    seconds: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.nodes + other.nodes,
            self.macs + other.macs,
            self.parameters + other.parameters,
            self.seconds + other.seconds,
        )


def positions(sizes: Sizes) -> int:
    """Number of pixels of a map."""
    return math.prod(ASSUMED_SIZE if size is None else max(size, 1) for size in sizes)


def of_elementwise(channels: int, pixels: int, profile: Profile, reads: int = 1) -> Cost:
    """One node that reads `reads` maps and writes one."""
    moved = channels * pixels * BYTES * (reads + 1)
    return Cost(nodes=1, seconds=profile.node + moved / profile.bandwidth)


def of_bias(channels: int, pixels: int, profile: Profile) -> Cost:
    """An Add of one number per channel."""
    one = of_elementwise(channels, pixels, profile)
    return Cost(1, 0, channels, one.seconds)


def of_stencil(shape: Geometry, biased: bool, identity: bool, out: int, profile: Profile) -> Cost:
    """A stencil as the nodes it is written with: Conv or Gemm, or Mul and Add, or nothing."""
    if shape.is_diagonal:
        one = of_elementwise(shape.outputs, out, profile)
        parameters = shape.outputs * (int(not identity) + int(biased))
        steps = int(not identity) + int(biased)
        return Cost(steps * one.nodes, 0, parameters, steps * one.seconds)
    macs = shape.weights * out // math.prod(shape.upsample)
    rate = profile.depthwise if shape.inputs == shape.groups else profile.dense
    read = shape.inputs * out * math.prod(shape.strides) // math.prod(shape.upsample)
    moved = (read + shape.outputs * out + shape.weights) * BYTES
    seconds = profile.node + macs / rate + moved / profile.bandwidth
    return Cost(1, macs, shape.weights + shape.outputs * int(biased), seconds)


def of_copy(channels: int, pixels: int, profile: Profile) -> Cost:
    """One node that only moves a map: Slice, Gather, Concat, Pad, Transpose."""
    return of_elementwise(channels, pixels, profile)
