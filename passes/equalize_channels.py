"""Scale channels by powers of two, so that their ranges are alike; no bit of the result changes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import onnx_ir as ir

from flatfold.passes.cost.model import CostModel
from flatfold.passes.cost.profiles import PROFILES
from flatfold.passes.decline import Decline
from flatfold.passes.fold_batchnorm import FoldBatchNorm
from flatfold.passes.lifting.lifter import Lifter
from flatfold.passes.lowering.draft import Draft
from flatfold.passes.lowering.replacement import Names, Replacement
from flatfold.passes.lowering.rounding import exact_of
from flatfold.passes.merge_branches import MergeBranches
from flatfold.passes.reading.affine import Affine, Term
from flatfold.passes.reading.layers import LAYERS
from flatfold.passes.reading.layout import make_term
from flatfold.passes.reading.node import (
    FLOATS,
    channel_count,
    constant,
    ints,
    rank,
    spatial_sizes,
    window,
)
from flatfold.passes.remark import HINTS, Remark, origins
from flatfold.passes.rewrite import Change, GraphRewrite, Region, Reweighted
from flatfold.passes.rewrite_shifts import RewriteShifts
from flatfold.passes.scaling.balance import balance, layer_of
from flatfold.passes.scaling.channels import (
    FIXED,
    Channels,
    ChannelScales,
    Labels,
    Scaled,
    components,
)
from flatfold.passes.scaling.constants import Constant, Exponents, constants_of
from flatfold.passes.stencil.geometry import Ints
from flatfold.passes.stencil.kernels import Weight, placeholder
from flatfold.passes.stencil.stencil import convolution, diagonal


class EqualizeChannels(GraphRewrite):
    """W2 f(W1 x + b1) + b2 = (W2 S) f(S^-1 W1 x + S^-1 b1) + b2, S diagonal, its elements 2^k.

    *Given* layers with nothing between that is not positively homogeneous, f(S x) = S f(x):
    Relu, LeakyRelu, PRelu, pools, means over pixels, zero padding, views, Concat, a factor. Values
    that are added share one S. *Result* the same graph with other weights, where what writes a
    channel and what reads it are about as large: see `scaling/balance.py`.

    Every product and every sum of a channel is times the same power of two, so its roundings are
    the same, whatever the order of the sum, with or without FMA, and in a Winograd transform, which
    never adds one channel to another before the products. That holds as long as no number leaves
    the normal range of the type. Of weights and biases this is checked; of data it cannot be, so no
    channel is scaled by more than 2^24: in single precision, values, products and sums between
    2^-102 and 2^103 are safe, and those that are 0.

    *Declines when* something else reads the channels (a sigmoid, a Clip at 6, a Softmax), a value
    that keeps its scale is added to them, they are an output, or a constant would not be normal.

    It saves no time. It is for types with few bits, and none of `PIPELINE`.
    """

    name = "equalize-channels"

    def plan(
        self, graph: ir.Graph, kept: Mapping[ir.Node, Decline], opset: int
    ) -> tuple[Sequence[Reweighted], Sequence[Remark]]:
        contributing = (FoldBatchNorm(), MergeBranches(), RewriteShifts())
        lifter = Lifter(contributing, CostModel(PROFILES["default"]))
        while True:
            scales = ChannelScales(lifter.linear, kept)
            scales.visit(graph)
            solution = _solve(scales)
            plan, unclear = self._reweighted(solution, opset)
            if not unclear:
                return plan, solution.remarks(self.name)
            kept = {**kept, **unclear}

    def _reweighted(
        self, solution: _Solution, opset: int
    ) -> tuple[list[Reweighted], dict[ir.Node, Decline]]:
        """The nodes with what they read or write scaled; and those of which no change is said."""
        plan: list[Reweighted] = []
        unclear: dict[ir.Node, Decline] = {}
        for scaled in solution.scales.nodes:
            if not solution.touches(scaled):
                continue
            again = partial(_between_scales, solution, scaled, opset)
            try:
                region = Region(scaled.node, _form(solution, scaled), scaled.nodes, {}, ())
            except Decline as why:
                unclear[scaled.node] = why.bare()
                continue
            change = Change(self.name, region, again(), again, bit_exact=True)
            constants, exact = solution.constants(scaled), solution.exact(scaled)
            plan.append(Reweighted(scaled.node, change, constants, exact))
        if unclear:
            for one in plan:
                one.change.replacement.discard()
        return plan, unclear


@dataclass(frozen=True, eq=False)
class _Solution:
    """The exponents of all scales by number, and why some are 0."""

    scales: ChannelScales
    labels: Labels
    exponents: Exponents
    why_fixed: Mapping[int, Decline]

    def of(self, value: ir.Value) -> Exponents | None:
        """The exponents of a value's channels, None if all are 0."""
        known = self.scales.of.get(value)
        exponents = None if known is None else self.exponents[self.labels[known.scales]]
        return exponents if exponents is not None and np.any(exponents) else None

    def touches(self, scaled: Scaled) -> bool:
        values = {v for node in scaled.nodes for v in (*node.inputs, *node.outputs) if v}
        return any(self.of(value) is not None for value in values)

    def listed(self, scaled: Scaled) -> Iterator[Constant]:
        """The constants of a node that are scaled with its channels."""
        if scaled.stencil is None or not scaled.has_constants:
            return
        shape = scaled.stencil.geometry
        reads = self.scales.scales_of(scaled.data, shape.axes, shape.inputs)
        writes = self.scales.of[scaled.node.outputs[0]].scales
        labels = self.labels[reads], self.labels[writes]
        yield from constants_of(scaled.node, shape, *labels)

    def constants(self, scaled: Scaled) -> dict[int, Weight]:
        """The new constants of a node by input, of those that change."""
        return {
            one.index: one.scaled(self.exponents)
            for one in self.listed(scaled)
            if np.any(one.shifts(self.exponents))
        }

    def exact(self, scaled: Scaled) -> dict[int, Weight]:
        """What the new constants of a node are rounded from, by input, where that was kept."""
        kept = {
            one.index: one.scaled_as(exact, self.exponents)
            for one in self.listed(scaled)
            if np.any(one.shifts(self.exponents))
            and (exact := exact_of(scaled.node.inputs[one.index])) is not None
        }
        return kept

    def remarks(self, name: str) -> list[Remark]:
        """One for each layer: by how much its channels were scaled, or why they were not."""
        layers = [scaled for scaled in self.scales.nodes if scaled.node.op_type in LAYERS]
        found = [self._remark(name, scaled) for scaled in layers]
        return [remark for remark in found if remark is not None]

    def _remark(self, name: str, scaled: Scaled) -> Remark | None:
        output = scaled.node.outputs[0]
        exponents, place = self.of(output), scaled.node.name or ""
        if exponents is not None:
            count, least, most = np.count_nonzero(exponents), exponents.min(), exponents.max()
            said = f"{count} of {len(exponents)} channels divided by 2^{least} to 2^{most}"
            return Remark(name, place, True, "APPLIED", said, replaced=origins([scaled.node]))
        numbers = np.unique(self.labels[self.scales.of[output].scales]).tolist()
        reasons = [self.why_fixed[n] for n in numbers if n in self.why_fixed]
        if not reasons or reasons[0].code == "TRIVIAL":
            return None
        code = reasons[0].code
        return Remark(name, place, False, code, reasons[0].reason, hint=HINTS[code])


def _solve(scales: ChannelScales) -> _Solution:
    """The exponents that balance the layers, as far as no constant leaves the normal numbers."""
    labels = components(scales.count, scales.ties)
    fixed = np.zeros(scales.count, bool)
    why_fixed: dict[int, Decline] = {}
    fixed[FIXED] = True
    for numbers, why in scales.fixed:
        fixed[labels[numbers]] = True
        why_fixed |= {n: why for n in labels[numbers].tolist() if n not in why_fixed}
    layers = []
    for scaled in scales.nodes:
        if scaled.stencil is not None and scaled.node.op_type in LAYERS:
            shape = scaled.stencil.geometry
            reads = scales.scales_of(scaled.data, shape.axes, shape.inputs)
            writes = scales.of[scaled.node.outputs[0]].scales
            layers.append(layer_of(scaled.stencil, labels[reads], labels[writes]))
    exponents = balance(layers, scales.count, fixed)
    solution = _Solution(scales, labels, exponents, why_fixed)
    constants = [one for scaled in scales.nodes for one in solution.listed(scaled)]
    while lossy := [found for one in constants if (found := one.lossy(exponents)) is not None]:
        for numbers, why in lossy:
            exponents[numbers] = 0
            why_fixed |= {n: why for n in numbers.tolist()}
    return solution


def _between_scales(solution: _Solution, scaled: Scaled, opset: int) -> Replacement:
    """The nodes with new constants, on inputs over their scales, and the result times its own."""
    output = scaled.node.outputs[0]
    draft = Draft(output, Names(set(), opset))
    constants = solution.constants(scaled)
    copies: dict[ir.Value, ir.Value] = {}
    for node in reversed(scaled.nodes):
        inputs = [value if value is None else copies.get(value, value) for value in node.inputs]
        for index, value in enumerate(node.inputs):
            exponents = None if value is None else solution.of(value)
            if value is not None and exponents is not None:
                inputs[index] = _times(draft, value, -exponents, solution.scales.of[value])
        if node is scaled.node:
            for index, array in constants.items():
                inputs[index] = draft.constant(array, f"constant_{index}")
        copies[node.outputs[0]] = draft.copy(node, inputs)
    result, exponents = copies[output], solution.of(output)
    if exponents is not None:
        result = _times(draft, result, exponents, solution.scales.of[output])
    return draft.replacement(result)


def _times(draft: Draft, value: ir.Value, exponents: Exponents, channels: Channels) -> ir.Value:
    """value * 2^exponents, one for each channel."""
    factors = np.ldexp(1.0, exponents).reshape(-1, *(1,) * channels.axes)
    return draft.op("Mul", value, draft.constant(factors, "scale"))


def _form(solution: _Solution, scaled: Scaled) -> Affine:
    """What a node reads, and how far: no more of its form is used."""
    others = {value for node in scaled.nodes for value in node.inputs if value is not None}
    others -= {scaled.data, *(node.outputs[0] for node in scaled.nodes)}
    read = [value for value in scaled.node.inputs if value is not None and value in others]
    first = _reach(solution, scaled)
    axes = first.stencil.geometry.axes
    terms = [
        _identity(value, axes)
        for value in read
        if constant(value) is None and value.dtype in FLOATS
    ]
    return Affine((first, *terms), None, 0)


def _reach(solution: _Solution, scaled: Scaled) -> Term:
    """A stencil that reads as far as a node does: all of the map, if it goes by the size of it."""
    data, kernel = scaled.data, ints(scaled.node, "kernel_shape", ())
    of = solution.scales.of
    known = of.get(data, of[scaled.node.outputs[0]])  # of a Concat, the first may have none
    if scaled.stencil is not None:
        return make_term(data, replace(scaled.stencil, bias=None))
    sizes = tuple(size or 1 for size in spatial_sizes(data))
    if scaled.sized and known.axes:
        return _window(data, sizes, *((n,) * len(sizes) for n in (1, 1, 0, 0)))
    if kernel:
        return _window(data, kernel, *window(scaled.node, kernel))
    return _identity(data, known.axes)


def _window(
    data: ir.Value, kernel: Ints, strides: Ints, dilations: Ints, begin: Ints, end: Ints
) -> Term:
    """The reach of a pool."""
    count = channel_count(data)
    stencil = convolution(
        placeholder((count, 1, *kernel)),
        groups=count,
        strides=strides,
        dilations=dilations,
        begin=begin,
        end=end,
    )
    return make_term(data, stencil)


def _identity(value: ir.Value, axes: int) -> Term:
    """A value as it is, along the axis of its channels."""
    if axes not in (0, rank(value) - 2):
        raise Decline("BROADCAST", f"{value.name} of shape {value.shape} has fewer axes")
    return make_term(value, diagonal(np.ones(channel_count(value, axes)), None, axes))
