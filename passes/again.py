"""A change worked out once more, by the code that made it, for who wants to see it computed."""

from __future__ import annotations

from flatfold.passes.cost import Profile
from flatfold.passes.draft import Lowered, Names
from flatfold.passes.lift import Lifter
from flatfold.passes.lower import lower
from flatfold.passes.region import Region


def lowered_again(region: Region, allowed: frozenset[str], profile: Profile, opset: int) -> Lowered:
    """The nodes for a region, which ends where it ended; nothing of it is in the graph yet."""
    lifter = Lifter(allowed, profile, region.evened)
    nodes = set(region.nodes)
    ends = ((value, why) for value, why in region.boundaries if value.producer() not in nodes)
    return lower(lifter.form(region.root, ends), region.output, Names(set(), opset), profile)
