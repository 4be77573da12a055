"""What a rewrite is: it describes a change, or declines with a reason a user understands."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir

from flatfold.passes.cost import Cost, Profile
from flatfold.passes.draft import Lowered, Names
from flatfold.passes.region import Region


class Rewrite(ABC):
    """A named kind of linear region, and the conditions under which there is work in it."""

    name: str
    kind: str

    @abstractmethod
    def accept(self, region: Region) -> None:
        """Raise Decline, with a reason a user understands, if the region holds nothing to do."""


@dataclass(frozen=True)
class Proposal:
    """Nodes in place of others; the form of the region says only what it reads, and how far."""

    region: Region
    lowered: Lowered
    before: Cost
    after: Cost


class Exchange(ABC):
    """A rewrite of a few nodes that are not all linear."""

    name: str

    @abstractmethod
    def propose(self, node: ir.Node, names: Names, profile: Profile) -> Proposal:
        """What to put in place of the nodes that end in `node`. Raises Decline if nothing."""


@dataclass(frozen=True)
class Change:
    """A replacement that is about to be made, for whoever wants to check it first.

    `again` works it out once more from the graph, which is still as it was, by the same code.
    """

    rewrite: str
    region: Region
    lowered: Lowered
    again: Callable[[], Lowered]
