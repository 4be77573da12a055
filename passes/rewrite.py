"""What a pass is: it reads operators, claims regions, and describes changes; it edits no graph.

A `Rewrite` works on linear regions, which the lifter grows with everything that the passes in use
contribute. A `LocalRewrite` (peephole) works on a few nodes that are not all linear. A
`GraphRewrite` changes constants all over a graph.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import onnx_ir as ir

from flatfold.passes.cost.model import MARGIN, Cost, CostModel
from flatfold.passes.decline import Decline
from flatfold.passes.lowering.replacement import Names, Replacement
from flatfold.passes.reading import Reader
from flatfold.passes.reading.affine import Affine, Term
from flatfold.passes.reading.meaning import Linear
from flatfold.passes.stencil.kernels import Weight
from flatfold.passes.stencil.stencil import Stencil

if TYPE_CHECKING:
    from flatfold.passes.lifting.sums import CompositionContext
    from flatfold.passes.remark import Remark


@dataclass(frozen=True)
class Region:
    """A linear region: `root` computes `form` from its sources through `nodes` (root first).

    `meanings` has what each node that was read means; nodes between them that only belong to one
    of those (the first two of a channel shuffle) have no entry.
    `stops`: values at which the region ends, each with the reason.
    `border_rounded`: the bias is that of the inside; near the border it may differ by rounding.
    `resized`: some kernel has another size than what it was computed from.
    """

    root: ir.Node
    form: Affine
    nodes: tuple[ir.Node, ...]
    meanings: dict[ir.Node, Linear]
    stops: tuple[tuple[ir.Value, Decline], ...]
    border_rounded: bool = False
    resized: bool = False

    @property
    def output(self) -> ir.Value:
        return self.root.outputs[0]

    @property
    def margin(self) -> float:
        """By which share the new form may cost more.

        A BatchNormalization in front of a matrix product leaves the product a bias, at about the
        same price. An engine that adds biases inside its products gains by that; and as no form
        is written with a BatchNormalization, it happens once.
        """
        norms = any(node.op_type == "BatchNormalization" for node in self.nodes)
        return MARGIN if norms else 0.0


class Rewrite(ABC):
    """A pass over linear regions.

    What it contributes (its readers, and each method that it overrides) is in use only while the
    pass is switched on. Of the passes that claim a region, the first in `PIPELINE` names the
    change.
    """

    name: ClassVar[str]

    def readers(self) -> Mapping[str, Reader]:
        """The operators that the pass reads as linear, by type, each with its reader."""
        return {}

    @abstractmethod
    def claims(self, region: Region) -> bool:
        """Whether the region is work of this pass."""

    def accept(self, region: Region) -> None:  # noqa: B027, most passes accept what they claim
        """Raise Decline, with a reason a user understands, if the region holds nothing to do."""

    def compose(self, outer: Stencil, inner: Affine, context: CompositionContext) -> Affine | None:
        """outer(inner) as one form; None if composing these two is another pass's work.

        Raises Decline where it is not exact or does not pay.
        """
        return None

    def join(
        self, terms: list[Term], pixels: int, cost: CostModel, consume: bool
    ) -> tuple[list[Term], Decline | None] | None:
        """Terms over one source as fewer terms, and why some stayed apart; None: as they are.

        `consume`: the terms are not needed afterwards, so their weights may be summed into.
        """
        return None

    def simplify_sum(self, form: Affine, dtype: ir.DataType | None) -> Affine:
        """The form of a sum with fewer terms, where two terms over different sources are one."""
        return form

    def resize(self, form: Affine, cost: CostModel) -> Affine:
        """The form of a whole region with kernels of other sizes; the same object if none."""
        return form


@dataclass(frozen=True)
class Proposal:
    """Nodes in place of others. Of the region's form, only what it reads and how far is used."""

    region: Region
    replacement: Replacement
    before: Cost
    after: Cost


class LocalRewrite(ABC):
    """A pass over a few nodes that are not all linear.

    first: it sees the graph once before the linear regions are looked at, which may take a part of
    what it looks for, such as a factor, into a layer. last: it sees the graph when all others find
    nothing any more, as they read what it replaces, and not what it writes.
    """

    name: ClassVar[str]
    first: ClassVar[bool] = False
    last: ClassVar[bool] = False

    @abstractmethod
    def match(self, node: ir.Node, names: Names, cost: CostModel) -> Proposal:
        """What to put in place of the nodes that end in `node`. Raises Decline if nothing."""


@dataclass(frozen=True)
class Reweighted:
    """A node that stays where it is, with other constants by input.

    `change`, for a check: the new node between scales of what it reads and writes is the old one.
    In the graph each of these scales meets its inverse at a node beside it, so none is written.
    `exact`: what those of the constants were rounded from of which that was kept.
    """

    node: ir.Node
    change: Change
    constants: Mapping[int, Weight]
    exact: Mapping[int, Weight]


class GraphRewrite(ABC):
    """A pass that gives many nodes of a graph other constants, all together."""

    name: ClassVar[str]

    @abstractmethod
    def plan(
        self, graph: ir.Graph, kept: Mapping[ir.Node, Decline], opset: int
    ) -> tuple[Sequence[Reweighted], Sequence[Remark]]:
        """Other constants, none for nodes that are `kept` for a reason; and what to say of them."""


@dataclass(frozen=True)
class Change:
    """A replacement that is about to be made, for a check before it is.

    `again` computes it once more from the graph, which is still as it was, by the same code.
    `bit_exact`: every output has the same bits, whatever the type that is computed in.
    """

    rewrite: str
    region: Region
    replacement: Replacement
    again: Callable[[], Replacement]
    bit_exact: bool = False
