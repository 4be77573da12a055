"""Merge parallel linear branches into one layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir

from flatfold.passes.cost.model import Cost, CostModel
from flatfold.passes.decline import Decline
from flatfold.passes.lowering.plan import Part, plan_term, too_costly
from flatfold.passes.reading import Reader
from flatfold.passes.reading.affine import Term
from flatfold.passes.reading.meaning import Fill, Joined, Summed
from flatfold.passes.reading.node import (
    Numbers,
    constant,
    constant_or_expanded,
    dims_of,
    number,
    rank,
    source,
)
from flatfold.passes.rewrite import Region, Rewrite
from flatfold.passes.stencil.channels import (
    NO_CHANNEL,
    ChannelIndex,
    common_index,
    is_all_channels,
    nonzero_outputs,
)
from flatfold.passes.stencil.geometry import Geometry, Sizes, summed_geometry
from flatfold.passes.stencil.stencil import Stencil, add, read_all_channels, regroup


class MergeBranches(Rewrite):
    """f(x) + g(x) - h(x) + .. = (f + g - h + ..)(x), for linear branches (RepVGG, 2021).

    *Given* any nesting of Add, Sub, Sum and Concat over values that are linear in some sources.
    *Result* for each source the fewest layers that cost least, and an Add for each remaining
    source, or a Concat of blocks of channels. Kernels are aligned by where their taps look, so
    size, parity, dilation and padding are free; identity is a kernel of one tap, an average pool
    one of equal taps. A Concat is a sum whose terms are zero on each other's channels or pixels, so
    a roll is two shifts, and the identity of some of the channels a mask.

    *Declines when* the branches read different values; strides or sizes differ; the sum may
    broadcast; one kernel for both would cost more than two.
    """

    name = "merge-branches"

    def readers(self) -> Mapping[str, Reader]:
        return {"Add": read_sum, "Concat": read_concat, "Sub": read_sum, "Sum": read_sum}

    def claims(self, region: Region) -> bool:
        return any(isinstance(linear, Summed | Joined) for linear in region.meanings.values())

    def accept(self, region: Region) -> None:
        if len(region.nodes) > 1 or len(region.form.terms) == 1:  # as x + x, which is 2 x
            return
        sources = ", ".join(term.source.name or "?" for term in region.form.terms)
        count = len(region.form.terms)
        raise Decline("SOURCES", f"its {count} terms read different values: {sources}")

    def join(
        self, terms: list[Term], pixels: int, cost: CostModel, consume: bool
    ) -> tuple[list[Term], Decline | None]:
        return join_terms(terms, pixels, cost, consume)


def read_sum(node: ir.Node) -> Summed:
    """A sum of values, none of them constant, each with its sign."""
    constants = sum(constant(value) is not None for value in node.inputs)
    if constants and len(node.inputs) == 2:
        raise Decline("NONLINEAR", "a constant is added")
    if constants:
        count = len(node.inputs)
        raise Decline("CONSTANT", f"{constants} of the {count} operands of a sum are constants")
    signs = [-1 if node.op_type == "Sub" and i == 1 else 1 for i in range(len(node.inputs))]
    return Summed(tuple((sign, source(node, i)) for i, sign in enumerate(signs)))


def read_concat(node: ir.Node) -> Joined:
    """Values side by side; constants among them at the ends, one number per channel each."""
    values = [source(node, i) for i in range(len(node.inputs))]
    data = tuple(value for value in values if constant_or_expanded(value) is None)
    if not data:
        raise Decline("CONSTANT", f"all {len(values)} operands are constants")
    axis = int(number(node, "axis", 0)) % rank(data[0])
    if axis == 0:
        raise Decline("NONLINEAR", "images are put side by side")
    fills = []
    for index, value in enumerate(values):
        filler = constant_or_expanded(value)
        if filler is not None:
            if 0 < index < len(values) - 1:
                operand = f"{value.name}, operand {index} of {len(values)}"
                raise Decline("CONSTANT", f"a constant is put between data: {operand}")
            fills.append(_fill(value, filler, axis, index == 0))
    return Joined(data, axis, tuple(fills))


def _fill(value: ir.Value, array: Numbers, axis: int, at_start: bool) -> Fill:
    sizes = dims_of(value)
    rows, count = sizes[axis], sizes[1]
    shape = (1,) * (len(sizes) - array.ndim) + array.shape
    if not rows or not count or axis == 1 or array.ndim > len(sizes):
        raise Decline(
            "CONSTANT",
            f"constant channels {value.name} of shape {array.shape} are put next to data",
        )
    by_channel = array.reshape(shape).swapaxes(0, 1).reshape(shape[1], -1).astype(np.float64)
    if np.any(by_channel != by_channel[:, :1]):
        extent = f"{array.min():g} to {array.max():g}"
        raise Decline(
            "NOT-PER-CHANNEL",
            f"the constant {value.name}, put next to data, varies on the map: {extent}",
        )
    return Fill(np.broadcast_to(by_channel[:, 0], (count,)), rows, at_start)


MOST_CLUSTERS = 24  # of which every pair is tried

Adapt = Callable[[Stencil], Stencil]


@dataclass
class _Cluster:
    """Terms that will become one stencil, planned by geometry before any arithmetic."""

    shape: Geometry
    members: list[Stencil]

    def cost(self, sizes: Sizes, pixels: int, cost: CostModel) -> Cost:
        part = Part.of(self.members[0], sizes)
        if len(self.members) > 1:
            part = replace(part, shape=self.shape, ones=False)
        return plan_term(part, False, pixels, cost).cost


@dataclass(frozen=True)
class _Merge:
    """Two clusters as one: seconds saved, shape, and how members come to one channel index."""

    gain: float
    shape: Geometry
    adapt: Adapt


def join_terms(
    terms: list[Term], pixels: int, cost: CostModel, consume: bool
) -> tuple[list[Term], Decline | None]:
    """Terms over one source as the fewest that pay, by greedy clustering, and why it ended.

    `consume`: the terms are not needed afterwards, so weights that they own may be summed into.
    """
    if len(terms) == 1:
        return terms, None
    source, sizes = terms[0].source, terms[0].sizes
    alike: dict[tuple[Geometry, bytes], _Cluster] = {}
    for term in terms:
        form = term.stencil
        key = (form.geometry, b"" if form.channel_index is None else form.channel_index.tobytes())
        alike.setdefault(key, _Cluster(form.geometry, [])).members.append(form)
    alike = _on_separate_channels(alike)
    clusters, refusal = _Partition(sizes, pixels, cost).join(list(alike.values()))
    result = []
    for cluster in clusters:
        parts = cluster.members
        form = parts[0] if len(parts) == 1 else add(parts, sizes, consume=consume)
        result.append(Term(source, form, sizes))
    return result, refusal


def _on_separate_channels(alike: dict[tuple[Geometry, bytes], _Cluster]) -> dict[Any, _Cluster]:
    """Terms of one shape on separate channels, as behind a Concat, as one cluster, untried."""
    together: dict[Geometry, list[_Cluster]] = {}
    for cluster in alike.values():
        together.setdefault(cluster.shape, []).append(cluster)
    clusters: dict[Any, _Cluster] = {}
    for shape, group in together.items():
        members = [member for cluster in group for member in cluster.members]
        channel_index = _common_index(members) if len(group) > 2 and shape.is_depthwise else None
        if channel_index is None:
            clusters |= {(shape, number): cluster for number, cluster in enumerate(group)}
            continue
        adapt = _reading(*_simplest_index(channel_index, members[0].input_channels))
        clusters[shape] = _Cluster(shape, [adapt(member) for member in members])
    return clusters


def _common_index(members: list[Stencil]) -> ChannelIndex | None:
    return common_index(
        [f.channels_read for f in members], [nonzero_outputs(f.weight) for f in members]
    )


@dataclass(frozen=True)
class _Partition:
    sizes: Sizes
    pixels: int
    cost: CostModel

    def join(self, clusters: list[_Cluster]) -> tuple[list[_Cluster], Decline | None]:
        """Join the pair that gains most until none gains; many clusters first in portions."""
        refusal: Decline | None = None
        while len(clusters) > MOST_CLUSTERS:
            portions = [
                clusters[i : i + MOST_CLUSTERS] for i in range(0, len(clusters), MOST_CLUSTERS)
            ]
            done = [self._join(portion) for portion in portions]
            fewer = [cluster for portion, _ in done for cluster in portion]
            refusal = next((why for _, why in done if why is not None), refusal)
            if len(fewer) > len(clusters) // 2:
                return fewer, refusal
            clusters = fewer
        joined, why = self._join(clusters)
        return joined, why or refusal

    def _join(self, clusters: list[_Cluster]) -> tuple[list[_Cluster], Decline | None]:
        """As `join`, each pair tried once."""
        refusal: Decline | None = None
        alive = dict(enumerate(clusters))
        merges: dict[tuple[int, int], _Merge] = {}
        fresh, count = list(alive), len(clusters)
        while True:
            for new in fresh:
                for old in alive:
                    if old == new or (old in fresh and old > new):
                        continue
                    try:
                        merges[old, new] = self._merge_of(alive[old], alive[new])
                    except Decline as reason:
                        refusal = reason.bare()
            if not merges:
                return list(alive.values()), refusal
            pair = max(merges, key=lambda key: merges[key].gain)
            best, (one, two) = merges[pair], (alive.pop(n) for n in pair)
            merges = {key: merge for key, merge in merges.items() if not set(key) & set(pair)}
            members = [best.adapt(member) for member in one.members + two.members]
            alive[count] = _Cluster(best.shape, members)
            fresh, count = [count], count + 1

    def _merge_of(self, one: _Cluster, two: _Cluster) -> _Merge:
        """The cheapest way to make two clusters one; Decline if none pays."""
        context = (self.sizes, self.pixels, self.cost)
        apart = one.cost(*context) + two.cost(*context)
        apart += self.cost.elementwise(one.shape.outputs, self.pixels, reads=2)
        best: _Merge | None = None
        reason: Decline | None = None
        for shapes, channel_index, ones, adapt in _ways_to_align(one, two):
            try:
                shape = summed_geometry(shapes, self.sizes)
            except Decline as why:
                reason = why.bare()
                continue
            part = Part(shape, ones, channel_index, self.sizes, one.members[0].input_channels)
            joined = plan_term(part, False, self.pixels, self.cost).cost
            gain = apart.seconds - joined.seconds
            if gain <= 0:
                reason = too_costly(apart, joined, "one kernel for both branches would cost")
            elif best is None or gain > best.gain:
                best = _Merge(gain, shape, adapt)
        if best is None:
            raise reason or AssertionError("there is always a way")
        return best


Way = tuple[list[Geometry], ChannelIndex | None, bool, Adapt]


def _ways_to_align(one: _Cluster, two: _Cluster) -> Iterator[Way]:
    """Ways to make both read the same channels.

    Each: (their shapes then, their channel index, whether all weights of the sum are 1, how).
    """
    first, second = one.members[0], two.members[0]
    shapes = [one.shape, two.shape]
    if _same_channels(first, second):
        yield shapes, first.channel_index, False, lambda f: f
        return
    if all(shape.is_depthwise for shape in shapes):
        members = one.members + two.members
        channel_index = _common_index(members)
        if channel_index is not None:
            final = _simplest_index(channel_index, first.input_channels)
            yield shapes, final[0], _ones(members), _reading(*final)
    yield from _as_grouped(one, two)
    dense = [replace(shape, inputs=first.input_channels, groups=1) for shape in shapes]
    yield dense, None, False, lambda f: read_all_channels(regroup(f, 1))


def _same_channels(one: Stencil, two: Stencil) -> bool:
    if one.channel_index is None or two.channel_index is None:
        return one.channel_index is two.channel_index
    return one.channel_index.tobytes() == two.channel_index.tobytes()


def _simplest_index(
    channel_index: ChannelIndex, source_channels: int
) -> tuple[ChannelIndex | None, int]:
    """(channel index, source channels); (None, 0) if every channel is read in order."""
    return (
        (None, 0)
        if is_all_channels(channel_index, source_channels)
        else (channel_index, source_channels)
    )


def _reading(channel_index: ChannelIndex | None, source_channels: int) -> Adapt:
    return lambda f: replace(f, channel_index=channel_index, source_channels=source_channels)


def _ones(members: list[Stencil]) -> bool:
    """Whether per-channel maps add up to ones."""
    if not all(f.geometry.is_diagonal for f in members):
        return False
    return bool(np.all(sum(f.weight.astype(np.float64) for f in members) == 1))


def _as_grouped(one: _Cluster, two: _Cluster) -> Iterator[Way]:
    """Parts on different channels, side by side: a convolution with groups.

    A dense weight that is zero outside one block of rows is, with as many groups as there are such
    blocks, the same array: the other groups are zero, whatever they read.
    """
    slots = [_slot(one), _slot(two)]
    if slots[0] is None or slots[1] is None or slots[0][0] != slots[1][0]:
        return
    groups, indices = slots[0][0], [slot[1] for slot in slots if slot is not None]
    if len(indices[0]) != len(indices[1]):
        return
    channel_index = common_index(indices, [index != NO_CHANNEL for index in indices])
    if channel_index is None:
        return
    inputs = len(channel_index)
    final, source_channels = _simplest_index(channel_index, one.members[0].input_channels)

    def adapt(f: Stencil) -> Stencil:
        shape = replace(f.geometry, groups=groups, inputs=inputs)
        return replace(f, geometry=shape, channel_index=final, source_channels=source_channels)

    shapes = [replace(b.shape, groups=groups, inputs=inputs) for b in (one, two)]
    yield shapes, final, False, adapt


def _slot(cluster: _Cluster) -> tuple[int, ChannelIndex] | None:
    """(groups, pick) with which the bundle is a convolution of many groups, most of them zero."""
    shape, first = cluster.shape, cluster.members[0]
    if shape.groups > 1:
        return shape.groups, first.channels_read
    alive = np.flatnonzero(np.any([nonzero_outputs(f.weight) for f in cluster.members], axis=0))
    if not len(alive):
        return None
    start, size = int(alive[0]), int(alive[-1] - alive[0]) + 1
    if size == shape.outputs or shape.outputs % size or start % size:
        return None
    groups = shape.outputs // size
    channel_index = np.full((groups, shape.inputs), NO_CHANNEL, np.int64)
    channel_index[start // size] = first.channels_read
    return groups, channel_index.reshape(-1)
