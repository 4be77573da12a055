"""Merge parallel linear branches into one layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from flatfold.passes.cost.model import Cost, elementwise_cost
from flatfold.passes.cost.profiles import Profile
from flatfold.passes.decline import Decline
from flatfold.passes.lowering.plan import Part, part_cost, too_costly
from flatfold.passes.reading.affine import Term
from flatfold.passes.rewrite import MERGE, Region, Rewrite
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
    kind = MERGE

    def accept(self, region: Region) -> None:
        if len(region.nodes) > 1:
            return
        sources = ", ".join(term.source.name or "?" for term in region.form.terms)
        count = len(region.form.terms)
        raise Decline("SOURCES", f"its {count} terms read different values: {sources}")


MOST_CLUSTERS = 24  # bundles of which every pair is looked at

Adapt = Callable[[Stencil], Stencil]


@dataclass
class _Cluster:
    """Terms that will become one stencil, planned by geometry before any arithmetic."""

    shape: Geometry
    members: list[Stencil]

    def cost(self, sizes: Sizes, pixels: int, profile: Profile) -> Cost:
        part = Part.of(self.members[0], sizes)
        if len(self.members) > 1:
            part = replace(part, shape=self.shape, ones=False)
        return part_cost(part, False, pixels, profile)


@dataclass(frozen=True)
class _Merge:
    """Two bundles as one: what it saves, its shape, and how the members come to one pick."""

    gain: float
    shape: Geometry
    bring: Adapt


def join_terms(
    terms: list[Term], pixels: int, profile: Profile, consume: bool
) -> tuple[list[Term], Decline | None]:
    """Join terms over one source, greedily, while that pays; and a reason why it ended.

    `consume`: nobody needs the terms afterwards, so that fresh weights may be summed into.
    """
    if len(terms) == 1:
        return terms, None
    source, sizes = terms[0].source, terms[0].sizes
    alike: dict[tuple[Geometry, bytes], _Cluster] = {}
    for term in terms:
        form = term.stencil
        key = (form.geometry, b"" if form.pick is None else form.pick.tobytes())
        alike.setdefault(key, _Cluster(form.geometry, [])).members.append(form)
    alike = _on_separate_channels(alike)
    bundles, refusal = _Partition(sizes, pixels, profile).join(list(alike.values()))
    result = []
    for bundle in bundles:
        parts = bundle.members
        form = parts[0] if len(parts) == 1 else add(parts, sizes, consume=consume)
        result.append(Term(source, form, sizes))
    return result, refusal


def _on_separate_channels(alike: dict[tuple[Geometry, bytes], _Cluster]) -> dict[Any, _Cluster]:
    """Terms of one shape on other channels, as a Concat makes them: no pair need be looked at."""
    together: dict[Geometry, list[_Cluster]] = {}
    for bundle in alike.values():
        together.setdefault(bundle.shape, []).append(bundle)
    found: dict[Any, _Cluster] = {}
    for shape, group in together.items():
        members = [member for bundle in group for member in bundle.members]
        pick = _common_index(members) if len(group) > 2 and shape.is_depthwise else None
        if pick is None:
            found |= {(shape, number): bundle for number, bundle in enumerate(group)}
            continue
        bring = _reading(*_simplest_index(pick, members[0].reads))
        found[shape] = _Cluster(shape, [bring(member) for member in members])
    return found


def _common_index(members: list[Stencil]) -> ChannelIndex | None:
    return common_index([f.chosen for f in members], [nonzero_outputs(f.weight) for f in members])


@dataclass(frozen=True)
class _Partition:
    sizes: Sizes
    pixels: int
    profile: Profile

    def join(self, bundles: list[_Cluster]) -> tuple[list[_Cluster], Decline | None]:
        """Join the pair that gains most until none gains; very many first in portions."""
        refusal: Decline | None = None
        while len(bundles) > MOST_CLUSTERS:
            portions = [
                bundles[i : i + MOST_CLUSTERS] for i in range(0, len(bundles), MOST_CLUSTERS)
            ]
            done = [self._join(portion) for portion in portions]
            fewer = [bundle for portion, _ in done for bundle in portion]
            refusal = next((why for _, why in done if why is not None), refusal)
            if len(fewer) > len(bundles) // 2:
                return fewer, refusal
            bundles = fewer
        found, why = self._join(bundles)
        return found, why or refusal

    def _join(self, bundles: list[_Cluster]) -> tuple[list[_Cluster], Decline | None]:
        """Each pair is looked at once."""
        refusal: Decline | None = None
        alive = dict(enumerate(bundles))
        joints: dict[tuple[int, int], _Merge] = {}
        fresh, count = list(alive), len(bundles)
        while True:
            for new in fresh:
                for old in alive:
                    if old == new or (old in fresh and old > new):
                        continue
                    try:
                        joints[old, new] = self._joint(alive[old], alive[new])
                    except Decline as reason:
                        refusal = reason.bare()
            if not joints:
                return list(alive.values()), refusal
            pair = max(joints, key=lambda key: joints[key].gain)
            best, (one, two) = joints[pair], (alive.pop(n) for n in pair)
            joints = {key: joint for key, joint in joints.items() if not set(key) & set(pair)}
            members = [best.bring(member) for member in one.members + two.members]
            alive[count] = _Cluster(best.shape, members)
            fresh, count = [count], count + 1

    def _joint(self, one: _Cluster, two: _Cluster) -> _Merge:
        """The cheapest way to make one of two; Decline if none pays."""
        how = (self.sizes, self.pixels, self.profile)
        apart = one.cost(*how) + two.cost(*how)
        apart += elementwise_cost(one.shape.outputs, self.pixels, self.profile, reads=2)
        best: _Merge | None = None
        reason: Decline | None = None
        for shapes, pick, ones, bring in _ways_to_align(one, two):
            try:
                shape = summed_geometry(shapes, self.sizes)
            except Decline as why:
                reason = why.bare()
                continue
            part = Part(shape, ones, pick, self.sizes, one.members[0].reads)
            joined = part_cost(part, False, self.pixels, self.profile)
            gain = apart.seconds - joined.seconds
            if gain <= 0:
                reason = too_costly(apart, joined, "one kernel for both branches would cost")
            elif best is None or gain > best.gain:
                best = _Merge(gain, shape, bring)
        if best is None:
            raise reason or AssertionError("there is always a way")
        return best


Way = tuple[list[Geometry], ChannelIndex | None, bool, Adapt]


def _ways_to_align(one: _Cluster, two: _Cluster) -> Iterator[Way]:
    """Ways to have both read the same channels.

    (their shapes then, what they pick, whether the sum has no weight but ones, how)
    """
    first, second = one.members[0], two.members[0]
    shapes = [one.shape, two.shape]
    if _same_channels(first, second):
        yield shapes, first.pick, False, lambda f: f
        return
    if all(shape.is_depthwise for shape in shapes):
        members = one.members + two.members
        pick = _common_index(members)
        if pick is not None:
            final = _simplest_index(pick, first.reads)
            yield shapes, final[0], _ones(members), _reading(*final)
    yield from _as_grouped(one, two)
    dense = [replace(shape, inputs=first.reads, groups=1) for shape in shapes]
    yield dense, None, False, lambda f: read_all_channels(regroup(f, 1))


def _same_channels(one: Stencil, two: Stencil) -> bool:
    if one.pick is None or two.pick is None:
        return one.pick is two.pick
    return one.pick.tobytes() == two.pick.tobytes()


def _simplest_index(pick: ChannelIndex, width: int) -> tuple[ChannelIndex | None, int]:
    """The pick and the width of a stencil; none if it picks every channel as it is."""
    return (None, 0) if is_all_channels(pick, width) else (pick, width)


def _reading(pick: ChannelIndex | None, width: int) -> Adapt:
    return lambda f: replace(f, pick=pick, width=width)


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
    groups, chosen = slots[0][0], [slot[1] for slot in slots if slot is not None]
    if len(chosen[0]) != len(chosen[1]):
        return
    pick = common_index(chosen, [index != NO_CHANNEL for index in chosen])
    if pick is None:
        return
    inputs = len(pick)
    final, width = _simplest_index(pick, one.members[0].reads)

    def bring(f: Stencil) -> Stencil:
        shape = replace(f.geometry, groups=groups, inputs=inputs)
        return replace(f, geometry=shape, pick=final, width=width)

    shapes = [replace(b.shape, groups=groups, inputs=inputs) for b in (one, two)]
    yield shapes, final, False, bring


def _slot(bundle: _Cluster) -> tuple[int, ChannelIndex] | None:
    """(groups, pick) with which the bundle is a convolution of many groups, most of them zero."""
    shape, first = bundle.shape, bundle.members[0]
    if shape.groups > 1:
        return shape.groups, first.chosen
    alive = np.flatnonzero(np.any([nonzero_outputs(f.weight) for f in bundle.members], axis=0))
    if not len(alive):
        return None
    start, size = int(alive[0]), int(alive[-1] - alive[0]) + 1
    if size == shape.outputs or shape.outputs % size or start % size:
        return None
    groups = shape.outputs // size
    pick = np.full((groups, shape.inputs), NO_CHANNEL, np.int64)
    pick[start // size] = first.chosen
    return groups, pick.reshape(-1)
