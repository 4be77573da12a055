"""A linear region of a graph, and the kinds of it that passes are named after."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from flatfold.passes import cost
from flatfold.passes.activations import ACTIVATIONS
from flatfold.passes.affine import Affine
from flatfold.passes.geometry import Decline
from flatfold.passes.reading import Applied, Joined, Linear, Summed

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
        return cost.MARGIN if norms else 0.0


def kind_of(meanings: dict[ir.Node, Linear]) -> str:
    """The kind of a region with these nodes."""
    found = list(meanings.values())
    if any(isinstance(linear, Summed | Joined) for linear in found):
        return MERGE
    layers = sum(
        isinstance(linear, Applied) and not linear.stencil.geometry.is_diagonal for linear in found
    )
    if layers > 1:
        return COMPOSE
    return COLLAPSE if any(node.op_type in ACTIVATIONS for node in meanings) else FOLD
