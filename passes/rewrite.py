"""What a rewrite is: it describes a change, or declines with a reason a user understands."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field

import onnx_ir as ir

from flatfold.passes.cost.model import MARGIN, Cost
from flatfold.passes.cost.profiles import Profile
from flatfold.passes.decline import Decline
from flatfold.passes.reading.affine import Affine
from flatfold.passes.reading.meaning import Linear


@dataclass
class Replacement:
    """New nodes and initializers, not yet part of a graph; `output` stands for the old value."""

    output: ir.Value
    nodes: list[ir.Node] = field(default_factory=list)
    initializers: list[ir.Value] = field(default_factory=list)

    def discard(self) -> None:
        """Let go of what the nodes read, which counts its readers."""
        for node in self.nodes:
            for index in range(len(node.inputs)):
                node.replace_input_with(index, None)


def clone_onto(node: ir.Node, source: ir.Value, shape: ir.Shape | None, names: Names) -> ir.Node:
    """The node on another first input, with an output of this shape."""
    copy = ir.node(node.op_type, [source, *node.inputs[1:]], dict(node.attributes))
    made, like = copy.outputs[0], node.outputs[0]
    made.name = copy.name = names.fresh(f"{like.name}.{node.op_type.lower()}")
    made.shape, made.type = shape, like.type
    return copy


class Names:
    """Names that no value of the graph has; and the opset that they are written in."""

    def __init__(self, taken: set[str], opset: int) -> None:
        self._taken = taken
        self.opset = opset

    def fresh(self, base: str) -> str:
        name, number = base, 1
        while name in self._taken:
            number += 1
            name = f"{base}_{number}"
        self._taken.add(name)
        return name


MERGE, COMPOSE, COLLAPSE, FOLD, TRIM = "merge", "compose", "collapse", "fold", "trim"


@dataclass(frozen=True)
class Region:
    """A linear region: `root` computes `form` from its sources through `nodes` (root first).

    `meanings` has every node that was read; what such a node takes in besides has none of its own.
    `evened`: its bias is that of the inside, from which the border's may differ by rounding.
    """

    root: ir.Node
    form: Affine
    nodes: tuple[ir.Node, ...]
    meanings: dict[ir.Node, Linear]
    kind: str
    boundaries: tuple[tuple[ir.Value, Decline], ...]
    evened: bool = False

    @property
    def output(self) -> ir.Value:
        return self.root.outputs[0]

    @property
    def margin(self) -> float:
        """How much dearer another form may be, as a share.

        A norm in front of a product leaves the product a bias, which is about as dear. An engine
        that adds biases in its products gains by that; and as no form is written with a norm, this
        happens once.
        """
        norms = any(node.op_type == "BatchNormalization" for node in self.nodes)
        return MARGIN if norms else 0.0


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
    lowered: Replacement
    before: Cost
    after: Cost


class LocalRewrite(ABC):
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
    lowered: Replacement
    again: Callable[[], Replacement]
