"""What nodes cost on a target; whether a rewrite pays is decided by these prices only.

    seconds = nodes * overhead + multiply-accumulates / rate(class) + bytes / bandwidth(class)

for one image. Element-wise nodes, copies and blocks of pixels have bandwidths of their own; an Add
of one number per channel, a HardSigmoid and some AveragePools take a multiple, and so do layers
whose channels do not fill whole registers. The figures of a
`Profile` are round numbers; bench/operator_costs.py measures them and prints the measured ones
next to them; bench/costs.py measures the decisions, which depend on their ratios. An unknown
spatial size counts as `ASSUMED_SIZE`.
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
LANES = 16  # numbers in a vector register: layers work on so many channels at a time
EMPTY = 0.98  # time of an empty part: 64 -> 1 to 12 channels, 3 x 3, take that of 64 -> 16
ALIGNED = 4  # channels, to a multiple of which a map comes in blocks of LANES channels
BLOCKS = ("DepthToSpace", "SpaceToDepth")
MEANS = ("GlobalAveragePool", "GlobalMaxPool", "ReduceMean")  # they write next to nothing
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
        return Cost(nodes=1, seconds=self.profile.node + moved / self.profile.elementwise)

    def repeated(self, one: Cost, count: int) -> Cost:
        """The cost of `count` nodes that cost `one` each."""
        return sum((one for _ in range(count)), Cost())

    def copy(self, channels: int, pixels: int) -> Cost:
        """One Slice, Pad, Concat, Gather or Transpose, by the map that it writes."""
        moved = channels * pixels * BYTES * 2
        return Cost(nodes=1, seconds=self.profile.node + moved / self.profile.copies)

    def bias(self, channels: int, pixels: int) -> Cost:
        """An Add of one number per channel."""
        return Cost(1, 0, channels, self.elementwise(channels, pixels).seconds)

    def per_channel(self, channels: int, pixels: int, scaled: bool, moved: bool) -> Cost:
        """A Mul, an Add, or both, of one number per channel of a map."""
        one = self.elementwise(channels, pixels)
        times = self.profile.offset if channels >= LANES else 1.0
        slower = one.seconds + (times - 1) * (one.seconds - self.profile.node)
        seconds = scaled * one.seconds + moved * slower
        return Cost(scaled + moved, 0, (scaled + moved) * channels, seconds)

    def one_tap(self, channels: int, pixels: int, scaled: bool, moved: bool) -> Cost:
        """The same as a depthwise convolution by one tap."""
        passed = channels * pixels * BYTES * 2
        seconds = self.profile.node + passed / self.profile.bandwidth
        return Cost(1, 0, (scaled + moved) * channels, seconds)

    def is_one_tap(self, shape: Geometry, scaled: bool, moved: bool) -> bool:
        """Whether a map of the channels is written as a convolution by one tap."""
        if not shape.axes or not moved:
            return False
        apart, joint = (
            f(shape.outputs, 1, scaled, moved) for f in (self.per_channel, self.one_tap)
        )
        node = self.profile.node
        return joint.seconds - node < (apart.seconds - apart.nodes * node) * (1 - MARGIN)

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
            write = (
                self.one_tap if self.is_one_tap(shape, not identity, biased) else self.per_channel
            )
            return write(shape.outputs, pixels, not identity, biased)
        macs = shape.weights * pixels // math.prod(shape.upsample)
        read = shape.inputs * pixels * math.prod(shape.strides) // math.prod(shape.upsample)
        moved = (read + shape.outputs * pixels + shape.weights) * BYTES
        busy = macs * self._filled(shape, pixels)
        seconds = self.profile.node + busy / self.rate(shape) + moved / self.profile.bandwidth
        if self._unfolds(shape):
            seconds += self.copy(shape.inputs * shape.taps, pixels).seconds - self.profile.node
        return Cost(1, macs, shape.weights + shape.outputs * int(biased), seconds)

    def _filled(self, shape: Geometry, pixels: int) -> float:
        """How many times the multiplies it takes, with channels filled up to whole registers."""
        if not shape.axes or shape.groups > 1 or self._unfolds(shape):
            return 1.0
        if shape.taps == 1:  # beyond one register priced as a product of matrices, which it is
            part, filled = 0, shape.inputs < LANES and pixels > 1
        else:
            part, filled = -shape.outputs % LANES, shape.inputs > LANES
        times = 1 + EMPTY * part / shape.outputs
        if self.profile.fills_inputs and filled:
            times *= 1 + -shape.inputs % LANES / shape.inputs
        return times

    def _unfolds(self, shape: Geometry) -> bool:
        """Whether all that each tap reads is copied, for a product of matrices."""
        is_layer = shape.axes and shape.groups == 1 and not shape.is_transposed
        aligned = shape.inputs <= LANES or shape.inputs % ALIGNED == 0
        return self.profile.fills_inputs and bool(is_layer) and not aligned

    def average(self, shape: Geometry, pixels: int) -> Cost:
        """An AveragePool, which is this depthwise layer without weights."""
        layer = self.stencil(shape, False, False, pixels)
        slow = shape.outputs > LANES and shape.outputs % LANES
        more = layer.macs / self.profile.averages - layer.macs / self.rate(shape) if slow else 0.0
        return Cost(1, layer.macs, 0, layer.seconds + max(more, 0.0))

    def operator(self, op_type: str, source: ir.Value) -> Cost:
        """One pass over what a node of this type reads; nothing for a view."""
        if op_type in VIEWS or source.shape is None:
            return Cost()
        elements = pixel_count(dims_of(source)[1:])
        one, node = self.elementwise(1, elements), self.profile.node
        if op_type == "Transpose":
            return self.copy(1, elements)
        if op_type in BLOCKS:
            return Cost(1, seconds=node + 2 * elements * BYTES / self.profile.blocks)
        if op_type in MEANS:
            return Cost(1, seconds=node + elements * BYTES / self.profile.bandwidth)
        times = self.profile.hard_sigmoid if op_type == "HardSigmoid" else 1.0
        return Cost(1, seconds=times * one.seconds)

    def deferred(self, value: ir.Value) -> Cost:
        """The nodes that make a deferred value; nothing for a value of the graph."""
        total = Cost()
        while (origin := origin_of(value)) is not None:
            total += self.operator(origin.op_type, origin.source)
            arrays = [a for a in origin.rest if a is not None and not isinstance(a, ir.Value)]
            total += Cost(parameters=sum(array.size for array in arrays))
            value = origin.source
        return total
