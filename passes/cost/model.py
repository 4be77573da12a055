"""What nodes cost on a target; whether a rewrite pays is decided by these prices only.

    seconds = nodes * overhead + multiply-accumulates / rate(class) + bytes / bandwidth(class)

for one image. The figures of a `Profile` are round numbers; bench/operator_costs.py measures them
and prints the measured ones next to them. Decisions depend on their ratios. An unknown spatial
size counts as `ASSUMED_SIZE`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from flatfold.passes.cost.profiles import Profile
from flatfold.passes.reading.deferred import origin_of
from flatfold.passes.reading.node import dims_of, pixel_count
from flatfold.passes.stencil.geometry import Geometry

BYTES = 4
MARGIN = 0.02  # estimates that are closer to each other than that say nothing
LANES = 16  # layers with fewer channels to a group leave a vector register half empty
EMPTY = 0.98  # time of an empty part: 64 -> 1 to 12 channels, 3 x 3, take that of 64 -> 16
VIEWS = ("Flatten", "Reshape", "Squeeze", "Unsqueeze")  # no data moves


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


@dataclass(frozen=True)
class CostModel:
    """Prices of single nodes, for one image, by the figures of a target."""

    profile: Profile

    def rate(self, shape: Geometry) -> float:
        """Multiply-accumulates a second of a layer of this shape."""
        profile = self.profile
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

    def elementwise(self, channels: int, pixels: int, reads: int = 1) -> Cost:
        """One node that reads `reads` maps and writes one."""
        moved = channels * pixels * BYTES * (reads + 1)
        return Cost(nodes=1, seconds=self.profile.node + moved / self.profile.bandwidth)

    def copy(self, channels: int, pixels: int) -> Cost:
        """One Slice, Pad, Concat, Gather or Transpose, by the map that it writes."""
        moved = channels * pixels * BYTES * 2
        return Cost(nodes=1, seconds=self.profile.node + moved / self.profile.copies)

    def bias(self, channels: int, pixels: int) -> Cost:
        """An Add of one number per channel."""
        return Cost(1, 0, channels, self.elementwise(channels, pixels).seconds)

    def sampler(self, samples: int, macs: int = 0) -> Cost:
        """A GridSample or DeformConv that reads so many samples and multiplies by so many weights.

        A DeformConv gathers its samples, and is a product of matrices after that.
        """
        profile = self.profile
        seconds = profile.node + samples / profile.samples + macs / profile.dense
        return Cost(1, macs, 0, seconds)

    def stencil(self, shape: Geometry, biased: bool, identity: bool, pixels: int) -> Cost:
        """A Conv or matrix product, or Mul and Add, or nothing, that writes `pixels` pixels."""
        if shape.is_diagonal:
            one = self.elementwise(shape.outputs, pixels)
            parts = int(not identity) + int(biased)
            steps = min(parts, 1) if shape.axes else parts  # both at once: a one-tap convolution
            return Cost(steps * one.nodes, 0, parts * shape.outputs, steps * one.seconds)
        macs = shape.weights * pixels // math.prod(shape.upsample)
        read = shape.inputs * pixels * math.prod(shape.strides) // math.prod(shape.upsample)
        moved = (read + shape.outputs * pixels + shape.weights) * BYTES
        empty = max(LANES - shape.outputs, 0) if shape.taps > 1 and shape.groups == 1 else 0
        busy = macs * (1 + EMPTY * empty / shape.outputs)
        seconds = self.profile.node + busy / self.rate(shape) + moved / self.profile.bandwidth
        return Cost(1, macs, shape.weights + shape.outputs * int(biased), seconds)

    def operator(self, op_type: str, source: ir.Value) -> Cost:
        """One pass over what a node of this type reads; nothing for a view."""
        if op_type in VIEWS or source.shape is None:
            return Cost()
        elements = pixel_count(dims_of(source)[1:])
        return self.copy(1, elements) if op_type == "Transpose" else self.elementwise(1, elements)

    def deferred(self, value: ir.Value) -> Cost:
        """The nodes that make a deferred value; nothing for a value of the graph."""
        total = Cost()
        while (origin := origin_of(value)) is not None:
            total += self.operator(origin.op_type, origin.source)
            arrays = [a for a in origin.rest if a is not None and not isinstance(a, ir.Value)]
            total += Cost(parameters=sum(array.size for array in arrays))
            value = origin.source
        return total
