"""How a form is written as nodes, and what that costs.

A sum is one Add per further term. Where terms cover different channels, as behind a Concat, it may
be cheaper to write each block of channels for itself and to put the blocks side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from flatfold.passes.cost.model import (
    Cost,
    bias_cost,
    copy_cost,
    deferred_cost,
    deferred_operator_cost,
    elementwise_cost,
    stencil_cost,
)
from flatfold.passes.cost.profiles import Profile
from flatfold.passes.decline import Decline
from flatfold.passes.reading.affine import Affine, Term
from flatfold.passes.reading.deferred import origin_of
from flatfold.passes.reading.layout import form_of_operator
from flatfold.passes.reading.meaning import Applied, Joined, Linear, Summed, Transparent, operands
from flatfold.passes.reading.node import constant, dims_of, pixel_count
from flatfold.passes.rewrite import Region
from flatfold.passes.stencil.channels import (
    ChannelIndex,
    all_channels,
    fill_gaps,
    is_consecutive,
    nonzero_outputs,
)
from flatfold.passes.stencil.geometry import Geometry, Sizes
from flatfold.passes.stencil.stencil import Stencil, select_outputs
from flatfold.passes.stencil.taps import with_crop_taps


@dataclass(frozen=True)
class Part:
    """What decides the cost of a term: its shape, whether its weights are ones, what it picks.

    `sizes` and `width`: of the map that channels are picked from.
    """

    shape: Geometry
    ones: bool = False
    pick: ChannelIndex | None = None
    sizes: Sizes = ()
    width: int = 0

    @staticmethod
    def of(f: Stencil, sizes: Sizes) -> Part:
        local = f.geometry.is_depthwise and f.geometry.taps == 1
        pick = None if f.pick is None else fill_gaps(f.pick, f.width)
        return Part(f.geometry, local and bool(np.all(f.weight == 1)), pick, sizes, f.width)


@dataclass(frozen=True)
class Block:
    """Some of the output channels, and the form of these alone."""

    channels: ChannelIndex
    form: Affine


def is_shift(shape: Geometry) -> bool:
    """One tap that looks at another pixel, channel by channel: Slice, Pad, or both.

    Not with padding and a stride: then where the Pad begins depends on the size.
    """
    moves = shape.is_depthwise and shape.taps == 1 and not shape.is_pointwise
    padded = max((*shape.begin, *shape.end), default=0) > 0
    return moves and not shape.is_transposed and not (padded and max(shape.strides) > 1)


def crops(shape: Geometry) -> bool:
    """Whether a shift drops some of the pixels."""
    return min((*shape.begin, *shape.end)) < 0 or max(shape.strides) > 1


def moves_data(part: Part, out: int, profile: Profile) -> bool:
    """Whether a shift is written as Slice and Pad: cheaper than a convolution by one tap."""
    if not can_move_data(part):
        return False
    copied = _moves_cost(part, False, out, profile)
    convolved = stencil_cost(with_crop_taps(part.shape), False, False, out, profile)
    return copied.seconds < convolved.seconds


def can_move_data(part: Part) -> bool:
    """Whether a Slice and a Pad can be it: a map that both cut is surely larger than the cut."""
    if not is_shift(part.shape):
        return False
    sizes = part.sizes or (None,) * part.shape.axes
    for size, begin, end in zip(sizes, part.shape.begin, part.shape.end, strict=True):
        crop = max(-begin, 0) + max(-end, 0)
        if crop and max(begin, end) > 0 and (size is None or size <= crop):
            return False
    return True


def picks_first(part: Part, out: int) -> bool:
    """Whether channels are chosen before pixels: whichever leaves less to the other."""
    read = pixel_count(part.sizes) if part.sizes else out
    return part.shape.inputs * read <= part.width * out


def _moves_cost(part: Part, biased: bool, out: int, profile: Profile) -> Cost:
    shape, total = part.shape, Cost()
    if crops(shape):
        total += copy_cost(shape.outputs, out, profile)
    if max((*shape.begin, *shape.end)) > 0:
        total += copy_cost(shape.outputs, out, profile)
    plain = replace(
        shape, begin=(0,) * shape.axes, end=(0,) * shape.axes, strides=(1,) * shape.axes
    )
    return total + stencil_cost(plain, biased, part.ones, out, profile)


def part_cost(part: Part, biased: bool, out: int, profile: Profile) -> Cost:
    """Cost of one term, `out` output positions an image."""
    shape = part.shape
    if moves_data(part, out, profile):
        total = _moves_cost(part, biased, out, profile)
    else:
        total = stencil_cost(with_crop_taps(shape), biased, part.ones, out, profile)
    if part.pick is None:
        return total
    read = pixel_count(part.sizes) if shape.axes else out
    if not moves_data(part, out, profile) or not crops(shape):
        return total + copy_cost(shape.inputs, read, profile)
    if is_consecutive(part.pick):
        return total  # one Slice does both
    if picks_first(part, out):
        return total + copy_cost(shape.inputs, read, profile)
    return total + copy_cost(part.width, out, profile)  # and the pick is what is counted above


def parts_cost(
    parts: Sequence[Part], biased: bool, out: int, profile: Profile, batched: bool = False
) -> Cost:
    """Cost of a sum of terms; a layer among them takes the bias."""
    total = Cost()
    if batched and biased and any(not part.shape.is_diagonal for part in parts):
        total = bias_cost(parts[0].shape.outputs, out, profile)
        biased = False
    host = bias_host([part.shape for part in parts])
    for index, part in enumerate(parts):
        total += part_cost(part, biased and index == host, out, profile)
    for _ in parts[1:]:
        total += elementwise_cost(parts[0].shape.outputs, out, profile, reads=2)
    return total


def bias_host(shapes: Sequence[Geometry]) -> int:
    """The term that takes the bias along: the first layer, which does it for nothing."""
    layers = (i for i, s in enumerate(shapes) if not s.is_diagonal and not is_shift(s))
    return next(layers, 0)


def sources_cost(form: Affine, profile: Profile) -> Cost:
    """Of what has to be made before the form can be applied."""
    total = Cost()
    for source in {term.source for term in form.live}:
        total += deferred_cost(source, profile)
    return total


def form_cost(form: Affine, profile: Profile) -> Cost:
    """Of the nodes that are written for this form."""
    return sources_cost(form, profile) + _best(form, profile)[1]


def plan_blocks(form: Affine, profile: Profile) -> list[Block]:
    """The blocks that the form is written in; one if it is written as a whole."""
    return _best(form, profile)[0]


def _best(form: Affine, profile: Profile) -> tuple[list[Block], Cost]:
    """The cheaper of the two ways to write the terms, and its cost."""
    whole = _of_whole(form, profile)
    apart = channel_blocks(form) if form.joined else []
    if len(apart) > 1:
        parts = _of_blocks(form, apart, profile)
        if parts.seconds < whole.seconds:
            return apart, parts
    return [Block(all_channels(form.geometry.outputs), form)], whole


def _of_whole(form: Affine, profile: Profile) -> Cost:
    parts: list[Part] = []
    chosen: set[tuple[ir.Value, bytes]] = set()  # channels that a Gather has picked already
    for term in form.live:
        part = Part.of(term.stencil, term.sizes)
        if part.pick is not None and not is_shift(part.shape):
            key = (term.source, part.pick.tobytes())
            part = replace(part, pick=None) if key in chosen else part
            chosen.add(key)
        parts.append(part)
    return parts_cost(parts, form.bias is not None, form.pixels, profile, form.batched)


def _of_blocks(form: Affine, apart: list[Block], profile: Profile) -> Cost:
    copied = copy_cost(form.geometry.outputs, form.pixels, profile)
    total = copied if is_in_order(apart) else copied + copied
    for block in apart:
        total += _of_whole(block.form, profile)
    return total


def is_in_order(apart: Sequence[Block]) -> bool:
    """Whether the blocks, side by side, have their channels in order."""
    order = np.concatenate([block.channels for block in apart])
    return bool(np.all(np.diff(order) > 0))


def channel_blocks(form: Affine) -> list[Block]:
    """Channels by the terms that they depend on, each block with these terms only."""
    alive = np.stack([nonzero_outputs(term.stencil.weight) for term in form.terms])
    names = np.packbits(alive, axis=0).T
    _, first, which = np.unique(names, axis=0, return_index=True, return_inverse=True)
    which = which.reshape(-1)
    found = []
    for group in np.argsort(first):
        channels = np.flatnonzero(which == group).astype(np.int64)
        some = alive[:, channels[0]]
        if not some.any():
            return []
        terms = tuple(
            Term(t.source, select_outputs(t.stencil, channels), t.sizes)
            for t, here in zip(form.terms, some, strict=True)
            if here
        )
        bias = None if form.bias is None else form.bias[channels]
        found.append(Block(channels, replace(form, terms=terms, bias=bias, joined=False)))
    return found


def too_costly(before: Cost, after: Cost, what: str) -> Decline:
    ratio = f"{after.seconds / before.seconds:.1f}x the time"
    if before.macs and after.macs > before.macs:
        ratio += f" and {after.macs / before.macs:.1f}x the multiplies"
    return Decline("COST", f"exact, but {what} {ratio}")


def nodes_cost(region: Region, profile: Profile) -> Cost:
    """Cost of the nodes that the region has."""
    total = Cost()
    for node, linear in region.meanings.items():
        total += _node_cost(linear, node, profile)
    return total


def _node_cost(linear: Linear, node: ir.Node, profile: Profile) -> Cost:
    if node.op_type == "Identity":
        return Cost()
    if isinstance(linear, Transparent):
        return deferred_operator_cost(node.op_type, linear.source, profile)
    if not isinstance(linear, Applied):
        values = (
            [node.outputs[0], *operands(linear)]
            if isinstance(linear, Summed)
            else [node.outputs[0]]
        )
        elements = pixel_count(_most_known(values)[1:])
        if isinstance(linear, Joined):
            return copy_cost(1, elements, profile)
        return elementwise_cost(1, elements, profile, reads=len(linear.operands))
    return _applied_cost(linear, node, profile)


def _most_known(values: list[ir.Value]) -> Sizes:
    """Sizes of values that are of one size: what any of them knows."""
    sizes = [dims_of(value) for value in values]
    alike = [some for some in sizes if len(some) == len(sizes[0])]
    return tuple(
        next((n for n in axis if n is not None), None) for axis in zip(*alike, strict=True)
    )


def _applied_cost(linear: Applied, node: ir.Node, profile: Profile) -> Cost:
    form = form_of_operator(linear, node.outputs[0])
    how = origin_of(linear.source)
    if how is not None:
        own = deferred_operator_cost(how.op_type, how.source, profile)
        weights = [constant(value) for value in node.inputs[1:]]
        return own + Cost(parameters=sum(array.size for array in weights if array is not None))
    if form.geometry.is_diagonal and linear.stencil.pick is None:  # one node, whichever it is
        one = elementwise_cost(form.geometry.outputs, form.pixels, profile)
        constants = min(len(node.inputs) - 1, 2)
        return Cost(1, 0, constants * form.geometry.outputs, one.seconds)
    return form_cost(form, profile)
