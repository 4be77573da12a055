"""The partition of a sum over one source that costs least: which terms become one kernel."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from flatfold.passes import cost, picks
from flatfold.passes import geometry as geo
from flatfold.passes.affine import Term
from flatfold.passes.cost import Cost, Profile
from flatfold.passes.elementary import unpicked
from flatfold.passes.geometry import Decline, Geometry, Sizes
from flatfold.passes.picks import Index
from flatfold.passes.stencil import Stencil, add, regroup
from flatfold.passes.writing import Part, of_part, too_dear

MOST = 24  # bundles of which every pair is looked at

Bring = Callable[[Stencil], Stencil]


@dataclass
class _Bundle:
    """Terms that will become one stencil, planned by geometry before any arithmetic."""

    shape: Geometry
    members: list[Stencil]

    def cost(self, sizes: Sizes, pixels: int, profile: Profile) -> Cost:
        part = Part.of(self.members[0], sizes)
        if len(self.members) > 1:
            part = replace(part, shape=self.shape, ones=False)
        return of_part(part, False, pixels, profile)


@dataclass(frozen=True)
class _Joint:
    """Two bundles as one: what it saves, its shape, and how the members come to one pick."""

    gain: float
    shape: Geometry
    bring: Bring


def merge(
    terms: list[Term], pixels: int, profile: Profile, consume: bool
) -> tuple[list[Term], Decline | None]:
    """Join terms over one source, greedily, while that pays; and a reason why it ended.

    `consume`: nobody needs the terms afterwards, so that fresh weights may be summed into.
    """
    if len(terms) == 1:
        return terms, None
    source, sizes = terms[0].source, terms[0].sizes
    alike: dict[tuple[Geometry, bytes], _Bundle] = {}
    for term in terms:
        form = term.stencil
        key = (form.geometry, b"" if form.pick is None else form.pick.tobytes())
        alike.setdefault(key, _Bundle(form.geometry, [])).members.append(form)
    alike = _chosen_apart(alike)
    bundles, refusal = _Partition(sizes, pixels, profile).join(list(alike.values()))
    result = []
    for bundle in bundles:
        parts = bundle.members
        form = parts[0] if len(parts) == 1 else add(parts, sizes, consume=consume)
        result.append(Term(source, form, sizes))
    return result, refusal


def _chosen_apart(alike: dict[tuple[Geometry, bytes], _Bundle]) -> dict[Any, _Bundle]:
    """Terms of one shape on other channels, as a Concat makes them: no pair need be looked at."""
    together: dict[Geometry, list[_Bundle]] = {}
    for bundle in alike.values():
        together.setdefault(bundle.shape, []).append(bundle)
    found: dict[Any, _Bundle] = {}
    for shape, group in together.items():
        members = [member for bundle in group for member in bundle.members]
        pick = _one_pick(members) if len(group) > 2 and shape.is_depthwise else None
        if pick is None:
            found |= {(shape, number): bundle for number, bundle in enumerate(group)}
            continue
        bring = _with_pick(*_simplest(pick, members[0].reads))
        found[shape] = _Bundle(shape, [bring(member) for member in members])
    return found


def _one_pick(members: list[Stencil]) -> Index | None:
    return picks.agreed([f.chosen for f in members], [picks.live(f.weight) for f in members])


@dataclass(frozen=True)
class _Partition:
    sizes: Sizes
    pixels: int
    profile: Profile

    def join(self, bundles: list[_Bundle]) -> tuple[list[_Bundle], Decline | None]:
        """Join the pair that gains most until none gains; very many first in portions."""
        refusal: Decline | None = None
        while len(bundles) > MOST:
            portions = [bundles[i : i + MOST] for i in range(0, len(bundles), MOST)]
            done = [self._join(portion) for portion in portions]
            fewer = [bundle for portion, _ in done for bundle in portion]
            refusal = next((why for _, why in done if why is not None), refusal)
            if len(fewer) > len(bundles) // 2:
                return fewer, refusal
            bundles = fewer
        found, why = self._join(bundles)
        return found, why or refusal

    def _join(self, bundles: list[_Bundle]) -> tuple[list[_Bundle], Decline | None]:
        """Each pair is looked at once."""
        refusal: Decline | None = None
        alive = dict(enumerate(bundles))
        joints: dict[tuple[int, int], _Joint] = {}
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
            alive[count] = _Bundle(best.shape, members)
            fresh, count = [count], count + 1

    def _joint(self, one: _Bundle, two: _Bundle) -> _Joint:
        """The cheapest way to make one of two; Decline if none pays."""
        how = (self.sizes, self.pixels, self.profile)
        apart = one.cost(*how) + two.cost(*how)
        apart += cost.of_elementwise(one.shape.outputs, self.pixels, self.profile, reads=2)
        best: _Joint | None = None
        reason: Decline | None = None
        for shapes, pick, ones, bring in _ways(one, two):
            try:
                shape = geo.union(shapes, self.sizes)
            except Decline as why:
                reason = why.bare()
                continue
            part = Part(shape, ones, pick, self.sizes, one.members[0].reads)
            joined = of_part(part, False, self.pixels, self.profile)
            gain = apart.seconds - joined.seconds
            if gain <= 0:
                reason = too_dear(apart, joined, "one kernel for both branches would cost")
            elif best is None or gain > best.gain:
                best = _Joint(gain, shape, bring)
        if best is None:
            raise reason or AssertionError("there is always a way")
        return best


Way = tuple[list[Geometry], Index | None, bool, Bring]


def _ways(one: _Bundle, two: _Bundle) -> Iterator[Way]:
    """Ways to have both read the same channels.

    (their shapes then, what they pick, whether the sum has no weight but ones, how)
    """
    first, second = one.members[0], two.members[0]
    shapes = [one.shape, two.shape]
    if _same_pick(first, second):
        yield shapes, first.pick, False, lambda f: f
        return
    if all(shape.is_depthwise for shape in shapes):
        members = one.members + two.members
        pick = _one_pick(members)
        if pick is not None:
            final = _simplest(pick, first.reads)
            yield shapes, final[0], _ones(members), _with_pick(*final)
    yield from _in_slots(one, two)
    dense = [replace(shape, inputs=first.reads, groups=1) for shape in shapes]
    yield dense, None, False, lambda f: unpicked(regroup(f, 1))


def _same_pick(one: Stencil, two: Stencil) -> bool:
    if one.pick is None or two.pick is None:
        return one.pick is two.pick
    return one.pick.tobytes() == two.pick.tobytes()


def _simplest(pick: Index, width: int) -> tuple[Index | None, int]:
    """The pick and the width of a stencil; none if it picks every channel as it is."""
    return (None, 0) if picks.is_every(pick, width) else (pick, width)


def _with_pick(pick: Index | None, width: int) -> Bring:
    return lambda f: replace(f, pick=pick, width=width)


def _ones(members: list[Stencil]) -> bool:
    """Whether per-channel maps add up to ones."""
    if not all(f.geometry.is_diagonal for f in members):
        return False
    return bool(np.all(sum(f.weight.astype(np.float64) for f in members) == 1))


def _in_slots(one: _Bundle, two: _Bundle) -> Iterator[Way]:
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
    pick = picks.agreed(chosen, [index != picks.NOTHING for index in chosen])
    if pick is None:
        return
    inputs = len(pick)
    final, width = _simplest(pick, one.members[0].reads)

    def bring(f: Stencil) -> Stencil:
        shape = replace(f.geometry, groups=groups, inputs=inputs)
        return replace(f, geometry=shape, pick=final, width=width)

    shapes = [replace(b.shape, groups=groups, inputs=inputs) for b in (one, two)]
    yield shapes, final, False, bring


def _slot(bundle: _Bundle) -> tuple[int, Index] | None:
    """(groups, pick) with which the bundle is a convolution of many groups, most of them zero."""
    shape, first = bundle.shape, bundle.members[0]
    if shape.groups > 1:
        return shape.groups, first.chosen
    alive = np.flatnonzero(np.any([picks.live(f.weight) for f in bundle.members], axis=0))
    if not len(alive):
        return None
    start, size = int(alive[0]), int(alive[-1] - alive[0]) + 1
    if size == shape.outputs or shape.outputs % size or start % size:
        return None
    groups = shape.outputs // size
    pick = np.full((groups, shape.inputs), picks.NOTHING, np.int64)
    pick[start // size] = first.chosen
    return groups, pick.reshape(-1)
