"""What a piece of graph costs on a target: whether a rewrite pays is decided here and only here.

    seconds = nodes * overhead + multiply-accumulates / rate(class) + bytes / bandwidth(class)

for one image. The figures of a `Profile` are round numbers; bench/operator_costs.py measures them
and prints what it finds beside them. Decisions depend on their ratios. Unknown spatial sizes count
as `ASSUMED_SIZE`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from flatfold.passes.cost.profiles import Profile
from flatfold.passes.reading.deferred import (
    origin_of,
)
from flatfold.passes.reading.node import dims_of, pixel_count
from flatfold.passes.stencil.geometry import Geometry

BYTES = 4
MARGIN = 0.02  # estimates that are closer to each other than that say nothing
LANES = 16  # grouped layers with fewer channels to a group leave a vector register half empty


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


def mac_rate(shape: Geometry, profile: Profile) -> float:
    """Multiply-accumulates a second of a layer of this shape."""
    if shape.axes == 0:
        return profile.product
    if shape.is_transposed:
        return profile.transposed if shape.groups == 1 else profile.transposed_grouped
    dilated = any(k > 1 and d > 1 for k, d in zip(shape.kernel, shape.dilations, strict=True))
    if shape.is_depthwise:
        widths, rates = zip(*profile.depthwise, strict=True)
        share = profile.dilated_depthwise if dilated else 1.0
        return share * float(np.interp(shape.kernel[-1], widths, rates))
    if shape.groups > 1 and min(shape.inputs, shape.outputs) < LANES * shape.groups:
        return profile.thin
    if shape.taps == 1:
        return profile.pointwise
    return profile.dense * (profile.dilated if dilated else 1.0)


def elementwise_cost(channels: int, pixels: int, profile: Profile, reads: int = 1) -> Cost:
    """One node that reads `reads` maps and writes one."""
    moved = channels * pixels * BYTES * (reads + 1)
    return Cost(nodes=1, seconds=profile.node + moved / profile.bandwidth)


def copy_cost(channels: int, pixels: int, profile: Profile) -> Cost:
    """One node that only moves data (Slice, Pad, Concat, Gather, Transpose), by what it writes."""
    moved = channels * pixels * BYTES * 2
    return Cost(nodes=1, seconds=profile.node + moved / profile.copies)


def bias_cost(channels: int, pixels: int, profile: Profile) -> Cost:
    """An Add of one number per channel."""
    one = elementwise_cost(channels, pixels, profile)
    return Cost(1, 0, channels, one.seconds)


def stencil_cost(shape: Geometry, biased: bool, identity: bool, out: int, profile: Profile) -> Cost:
    """A stencil as the nodes it is written with: Conv or Gemm, or Mul, Add, or nothing."""
    if shape.is_diagonal:
        one = elementwise_cost(shape.outputs, out, profile)
        parts = int(not identity) + int(biased)
        steps = min(parts, 1) if shape.axes else parts  # both at once: a convolution by one tap
        return Cost(steps * one.nodes, 0, parts * shape.outputs, steps * one.seconds)
    macs = shape.weights * out // math.prod(shape.upsample)
    read = shape.inputs * out * math.prod(shape.strides) // math.prod(shape.upsample)
    moved = (read + shape.outputs * out + shape.weights) * BYTES
    seconds = profile.node + macs / mac_rate(shape, profile) + moved / profile.bandwidth
    return Cost(1, macs, shape.weights + shape.outputs * int(biased), seconds)


VIEWS = ("Flatten", "Reshape", "Squeeze", "Unsqueeze")  # a view; no data moves


def deferred_cost(value: ir.Value, profile: Profile) -> Cost:
    """Of the nodes that a virtual value needs."""
    total = Cost()
    while (how := origin_of(value)) is not None:
        total += deferred_operator_cost(how.op_type, how.source, profile)
        arrays = [held for held in how.rest if held is not None and not isinstance(held, ir.Value)]
        total += Cost(parameters=sum(array.size for array in arrays))
        value = how.source
    return total


def deferred_operator_cost(op_type: str, source: ir.Value, profile: Profile) -> Cost:
    """One pass over what it reads, or nothing."""
    if op_type in VIEWS or source.shape is None:
        return Cost()
    elements = pixel_count(dims_of(source)[1:])
    if op_type == "Transpose":
        return copy_cost(1, elements, profile)
    return elementwise_cost(1, elements, profile)
