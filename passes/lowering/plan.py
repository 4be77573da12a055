"""How a form is written as nodes: decided once, priced, and handed to emit.py.

A form is one sum, or blocks of channels put side by side where its terms cover different channels,
as behind a Concat. A sum is its terms and one Add per further term. A term is steps: SELECT
channels, CROP, PAD or ROLL pixels, and APPLY the layer or the scale that is left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto

import numpy as np
import onnx_ir as ir

from flatfold.passes.cost.model import Cost, CostModel
from flatfold.passes.decline import Decline
from flatfold.passes.reading.affine import Affine, Term
from flatfold.passes.reading.deferred import origin_of
from flatfold.passes.reading.layout import best_known, form_of_operator
from flatfold.passes.reading.meaning import Applied, Joined, Linear, Summed, Transparent, operands
from flatfold.passes.reading.node import constant, dims_of, pixel_count, producer_of, source
from flatfold.passes.stencil.channels import (
    ChannelIndex,
    all_channels,
    fill_gaps,
    is_consecutive,
    nonzero_outputs,
)
from flatfold.passes.stencil.geometry import Geometry, Sizes
from flatfold.passes.stencil.stencil import Stencil, nonzero_bias, select_outputs
from flatfold.passes.stencil.taps import rolled, with_crop_taps

LEAST_ROW = 32  # numbers: a Gather of rows takes 7 ns for each, 32 numbers are copied in 8


@dataclass(frozen=True)
class Part:
    """What decides how a term is written: its geometry, and whether all its weights are 1.

    `channel_index` are the channels that it reads of a map of `source_channels` and `sizes`.
    `roll`: the axis and the shift, where it rolls rows long enough to be copied one by one.
    """

    shape: Geometry
    ones: bool = False
    channel_index: ChannelIndex | None = None
    sizes: Sizes = ()
    source_channels: int = 0
    roll: tuple[int, int] | None = None

    @staticmethod
    def of(f: Stencil, sizes: Sizes) -> Part:
        scales = f.geometry.is_depthwise and f.geometry.taps == 1
        ones = scales and bool(np.all(f.weight == 1))
        index = None if f.channel_index is None else fill_gaps(f.channel_index, f.source_channels)
        return Part(f.geometry, ones, index, sizes, f.source_channels, _roll_of_rows(f, sizes))


def _roll_of_rows(f: Stencil, sizes: Sizes) -> tuple[int, int] | None:
    """A roll whose rows, the axes behind the one that it rolls, have at least LEAST_ROW numbers."""
    roll = rolled(f, sizes) if f.geometry.axes and sizes else None
    if roll is None or None in (rows := sizes[roll[0] + 1 :]):
        return None
    return roll if pixel_count(rows) >= LEAST_ROW else None


class Step(Enum):
    """One node, or the scale and bias that may need none, or are a convolution by one tap."""

    SELECT = auto()
    CROP = auto()
    PAD = auto()
    ROLL = auto()
    APPLY = auto()
    ONE_TAP = auto()


@dataclass(frozen=True)
class TermPlan:
    """The steps of a term, in order, each with its cost."""

    steps: tuple[tuple[Step, Cost], ...]

    @property
    def cost(self) -> Cost:
        return sum((cost for _, cost in self.steps), Cost())


@dataclass(frozen=True)
class SumPlan:
    """A plan for each term, the number of the term that takes the bias, and the cost of all."""

    terms: tuple[TermPlan, ...]
    host: int
    cost: Cost


@dataclass(frozen=True)
class Block:
    """Some of the output channels, the form of these alone, and how it is written."""

    channels: ChannelIndex
    form: Affine
    plan: SumPlan


@dataclass(frozen=True)
class Plan:
    """The blocks of a form, in the order in which they are put side by side, and the cost."""

    blocks: tuple[Block, ...]
    cost: Cost

    @property
    def in_order(self) -> bool:
        """Whether the channels of the blocks, side by side, are in order."""
        return _in_order([block.channels for block in self.blocks])


def plan(form: Affine, cost: CostModel) -> Plan:
    """The cheaper way to write the form: as one sum, or in blocks of channels."""
    whole = _plan_terms(form, cost)
    blocks = channel_blocks(form, cost) if form.joined else []
    if len(blocks) > 1:
        copy = cost.copy(form.geometry.outputs, form.pixels)
        total = copy if _in_order([block.channels for block in blocks]) else copy + copy
        for block in blocks:
            total += block.plan.cost
        if total.seconds < whole.cost.seconds:
            return Plan(tuple(blocks), total)
    return Plan((Block(all_channels(form.geometry.outputs), form, whole),), whole.cost)


def form_cost(form: Affine, cost: CostModel) -> Cost:
    """What the nodes cost that are written for this form."""
    return sources_cost(form, cost) + plan(form, cost).cost


def sources_cost(form: Affine, cost: CostModel) -> Cost:
    """What the nodes cost that make the deferred sources of the form."""
    total = Cost()
    for made in {term.source for term in form.live}:
        total += cost.deferred(made)
    return total


def channel_blocks(form: Affine, cost: CostModel) -> list[Block]:
    """The channels by the terms that they depend on, each block with these terms only.

    None if some channel depends on no term.
    """
    alive = np.stack([nonzero_outputs(term.stencil.weight) for term in form.terms])
    names = np.packbits(alive, axis=0).T
    _, first, which = np.unique(names, axis=0, return_index=True, return_inverse=True)
    which = which.reshape(-1)
    blocks = []
    for group in np.argsort(first):
        channels = np.flatnonzero(which == group).astype(np.int64)
        depends = alive[:, channels[0]]
        if not depends.any():
            return []
        terms = tuple(
            Term(t.source, select_outputs(t.stencil, channels), t.sizes)
            for t, here in zip(form.terms, depends, strict=True)
            if here
        )
        bias = None if form.bias is None else nonzero_bias(form.bias[channels])
        part = replace(form, terms=terms, bias=bias, joined=False)
        blocks.append(Block(channels, part, _plan_terms(part, cost)))
    return blocks


def _in_order(channels: Sequence[ChannelIndex]) -> bool:
    return bool(np.all(np.diff(np.concatenate(channels)) > 0))


def _plan_terms(form: Affine, cost: CostModel) -> SumPlan:
    """The plan of a form as one sum; channels that are selected once are not selected again."""
    parts: list[Part] = []
    selected: set[tuple[ir.Value, bytes]] = set()
    for term in form.live:
        part = Part.of(term.stencil, term.sizes)
        if part.channel_index is not None and not is_shift(part.shape):
            key = (term.source, part.channel_index.tobytes())
            part = replace(part, channel_index=None) if key in selected else part
            selected.add(key)
        parts.append(part)
    return plan_sum(parts, form.bias is not None, form.pixels, cost, form.batched)


def plan_sum(
    parts: Sequence[Part], biased: bool, pixels: int, cost: CostModel, batched: bool = False
) -> SumPlan:
    """A sum of terms that writes `pixels` pixels an image; a layer among them takes the bias."""
    host = bias_host(parts)
    extra = Cost()
    if batched and biased and any(not part.shape.is_diagonal for part in parts):
        extra = cost.bias(parts[0].shape.outputs, pixels)  # no Gemm adds it for nothing
        biased = False
    terms = tuple(
        plan_term(part, biased and index == host, pixels, cost) for index, part in enumerate(parts)
    )
    total = sum((term.cost for term in terms), extra)
    for _ in parts[1:]:
        total += cost.elementwise(parts[0].shape.outputs, pixels, reads=2)
    return SumPlan(terms, host, total)


def bias_host(parts: Sequence[Part]) -> int:
    """The term that takes the bias along: the first layer, which adds it for nothing."""
    still = ((i, part.shape) for i, part in enumerate(parts) if part.roll is None)
    return next((i for i, shape in still if not shape.is_diagonal and not is_shift(shape)), 0)


def plan_term(part: Part, biased: bool, pixels: int, cost: CostModel) -> TermPlan:
    """The steps of one term that writes `pixels` pixels an image."""
    shape, index = part.shape, part.channel_index
    read = pixel_count(part.sizes) if shape.axes else pixels
    select = (Step.SELECT, cost.copy(shape.inputs, read))
    if part.roll is not None:
        roll = (Step.ROLL, cost.copy(shape.outputs, pixels))
        left = (Step.APPLY, cost.stencil(in_place(shape), biased, True, pixels))
        return TermPlan((roll, left) if index is None else (select, roll, left))
    if not moves_data(part, pixels, cost):
        whole = cost.stencil(with_crop_taps(shape), biased, part.ones, pixels)
        apply = (_last_step(part, biased, cost), whole + _padding_cost(part, cost))
        return TermPlan((apply,) if index is None else (select, apply))
    copy = cost.copy(shape.outputs, pixels)
    steps = []
    if index is None or not crops(shape):
        steps += [] if index is None else [select]
        steps += [(Step.CROP, copy)] if crops(shape) else []
    elif is_consecutive(index):
        steps += [(Step.CROP, copy)]  # one Slice does both
    elif selects_first(part, pixels):
        steps += [select, (Step.CROP, copy)]
    else:
        steps += [(Step.CROP, cost.copy(part.source_channels, pixels)), (Step.SELECT, copy)]
    steps += [(Step.PAD, copy)] if pads(shape) else []
    rest = replace(part, shape=in_place(shape))
    last = cost.stencil(rest.shape, biased, part.ones, pixels)
    steps += [(_last_step(rest, biased, cost), last)]
    return TermPlan(tuple(steps))


def _last_step(part: Part, biased: bool, cost: CostModel) -> Step:
    is_map = part.shape.is_diagonal
    return (
        Step.ONE_TAP
        if is_map and cost.is_one_tap(part.shape, not part.ones, biased)
        else Step.APPLY
    )


def _padding_cost(part: Part, cost: CostModel) -> Cost:
    """What a layer costs besides whose taps reach over the whole map, as those of a roll do.

    It writes and reads a map with all the zeros around it, most of which is zeros.
    """
    shape = part.shape
    ends = list(zip(part.sizes, shape.begin, shape.end, strict=False))
    if not shape.axes or not any(n is not None and max(b, e) >= n for n, b, e in ends):
        return Cost()
    around = tuple(None if n is None else n + max(b, 0) + max(e, 0) for n, b, e in ends)
    return Cost(seconds=2 * cost.copy(shape.inputs, pixel_count(around)).seconds)


def is_shift(shape: Geometry) -> bool:
    """One tap per channel that looks at another pixel: Slice, Pad, or both.

    Not with padding and a stride: then where the Pad begins depends on the size.
    """
    moves = shape.is_depthwise and shape.taps == 1 and not shape.is_pointwise
    return moves and not shape.is_transposed and not (pads(shape) and max(shape.strides) > 1)


def crops(shape: Geometry) -> bool:
    """Whether a shift drops some of the pixels."""
    return min((*shape.begin, *shape.end)) < 0 or max(shape.strides) > 1


def pads(shape: Geometry) -> bool:
    return max((*shape.begin, *shape.end), default=0) > 0


def moves_data(part: Part, pixels: int, cost: CostModel) -> bool:
    """Whether a shift is written as Slice and Pad: cheaper than a convolution by one tap.

    A cut always is: 32 of 35 rows between two Gathers take 0.93 of the time of a convolution on
    ONNX Runtime and 0.48 on OpenVINO, which both turn the map for one.
    """
    if not _can_move_data(part):
        return False
    shape = part.shape
    if part.ones and not pads(shape):
        return True
    copies = int(crops(shape)) + int(pads(shape))
    copied = cost.stencil(in_place(shape), False, part.ones, pixels)
    for _ in range(copies):
        copied += cost.copy(shape.outputs, pixels)
    convolved = cost.stencil(with_crop_taps(shape), False, False, pixels)
    return copied.seconds < convolved.seconds


def _can_move_data(part: Part) -> bool:
    """Whether Slice and Pad can do it: a map that both change is surely larger than the cut."""
    if not is_shift(part.shape):
        return False
    sizes = part.sizes or (None,) * part.shape.axes
    for size, begin, end in zip(sizes, part.shape.begin, part.shape.end, strict=True):
        cut = max(-begin, 0) + max(-end, 0)
        if cut and max(begin, end) > 0 and (size is None or size <= cut):
            return False
    return True


def selects_first(part: Part, pixels: int) -> bool:
    """Whether channels are selected before pixels are cut: whichever leaves the other less."""
    read = pixel_count(part.sizes) if part.sizes else pixels
    return part.shape.inputs * read <= part.source_channels * pixels


def in_place(shape: Geometry) -> Geometry:
    """What is left of a shift or a roll once its pixels are moved: a scale."""
    none, one = (0,) * shape.axes, (1,) * shape.axes
    return replace(shape, kernel=one, dilations=one, begin=none, end=none, strides=one)


def too_costly(before: Cost, after: Cost, what: str) -> Decline:
    """The reason, with both ratios, of a form that costs more than what it would replace."""
    ratio = f"{after.seconds / before.seconds:.1f}x the time"
    if before.macs and after.macs > before.macs:
        ratio += f" and {after.macs / before.macs:.1f}x the multiplies"
    return Decline("COST", f"exact, but {what} {ratio}")


def cost_of_nodes(meanings: Mapping[ir.Node, Linear], cost: CostModel) -> Cost:
    """What nodes that are in a graph cost, as they are written there."""
    total = Cost()
    for node, linear in meanings.items():
        total += node_cost(linear, node, cost)
    return total


def node_cost(linear: Linear, node: ir.Node, cost: CostModel) -> Cost:
    if node.op_type == "Identity":
        return Cost()
    if isinstance(linear, Transparent):
        nodes = [*map(producer_of, linear.through), node]
        return sum((cost.operator(n.op_type, source(n)) for n in nodes), Cost())
    if isinstance(linear, Applied):
        return _applied_cost(linear, node, cost)
    read = operands(linear) if isinstance(linear, Summed) else ()
    if isinstance(linear, Joined):
        return cost.copy(1, pixel_count(_joined_sizes(linear, node.outputs[0])[1:]))
    elements = pixel_count(_best_known_sizes([node.outputs[0], *read])[1:])
    return cost.elementwise(1, elements, reads=len(linear.operands))


def _best_known_sizes(values: list[ir.Value]) -> Sizes:
    """The sizes of values that are of one size, as far as any of them is declared."""
    sizes = [dims_of(value) for value in values]
    return best_known([dims for dims in sizes if len(dims) == len(sizes[0])])


def _joined_sizes(linear: Joined, output: ir.Value) -> Sizes:
    """The sizes of a Concat, as far as it or any operand declares them."""
    parts, axis = [dims_of(value) for value in linear.values], linear.axis
    lengths = [part[axis] for part in parts] + [fill.rows for fill in linear.fills]
    whole = None if None in lengths else sum(length or 0 for length in lengths)
    computed = [(*part[:axis], whole, *part[axis + 1 :]) for part in parts]
    return best_known([dims_of(output), *computed])


def _applied_cost(linear: Applied, node: ir.Node, cost: CostModel) -> Cost:
    if node.op_type == "ReduceMean":
        return cost.operator(node.op_type, linear.source)
    form = form_of_operator(linear, node.outputs[0])
    if linear.sampling is not None:
        samples, macs = linear.sampling
        return cost.sampler(samples * form.pixels, macs * form.pixels)
    origin = origin_of(linear.source)
    if origin is not None:
        own = cost.operator(origin.op_type, origin.source)
        weights = [constant(value) for value in node.inputs[1:]]
        return own + Cost(parameters=sum(array.size for array in weights if array is not None))
    if node.op_type in COPIES:  # as it is; it may be written as a layer that takes less
        return cost.copy(form.geometry.outputs, form.pixels)
    if node.op_type == "AveragePool":
        return cost.average(form.geometry, form.pixels)
    if form.geometry.is_diagonal and linear.stencil.channel_index is None:
        return _map_cost(form, node, cost)
    turned = Cost()
    if node.op_type == "Einsum" and form.geometry.axes:  # engines put the channels last, and back
        turned = Cost(seconds=2 * cost.copy(form.geometry.inputs, form.pixels).seconds)
    return form_cost(form, cost) + turned


COPIES = ("Gather", "Pad", "Slice")


def _map_cost(form: Affine, node: ir.Node, cost: CostModel) -> Cost:
    """One node of any kind that is a map of the channels."""
    count, pixels, axes = form.geometry.outputs, form.pixels, form.geometry.axes
    parameters = min(len(node.inputs) - 1, 2) * count
    one = cost.elementwise(count, pixels)
    if axes and node.op_type in ("Add", "Sub", "Sum"):
        one = cost.per_channel(count, pixels, False, True)
    elif axes and node.op_type == "Conv":
        one = cost.one_tap(count, pixels, True, True)
    return Cost(1, 0, parameters, one.seconds)
