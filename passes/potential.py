"""What every change lowers, so that no changes can undo each other for ever.

The potential of a graph is the sum of that of its nodes, compared in this order: norms, estimated
time, parameters, nodes, activations behind a max pool. A node's own does not depend on the nodes
around it, so a change lowers that of the graph by as much as it lowers that of what it replaces.
No potential is below zero, and time counts in whole units, so a fixed point is reached.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass

import onnx_ir as ir

from flatfold.passes.collapse_activations import ACTIVATIONS
from flatfold.passes.cost.model import CostModel
from flatfold.passes.decline import Decline
from flatfold.passes.lowering.plan import node_cost
from flatfold.passes.reading.meaning import Applied, Linear, Transparent

NORMS = ("BatchNormalization", "Sqrt")  # other norms are spelled out with a root
UNITS = 2**50  # in a second: finer than estimates differ, coarser than sums of them are rounded


@dataclass(frozen=True, order=True)
class Potential:
    """Compared field by field, the first one first; adds up."""

    norms: int = 0
    time: int = 0
    parameters: int = 0
    nodes: int = 0
    pooled: int = 0

    def __add__(self, other: Potential) -> Potential:
        return Potential(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))


def potential_of(
    nodes: Sequence[ir.Node], linear: Callable[[ir.Node], Linear], cost: CostModel
) -> Potential:
    """The potential of some nodes; `linear` reads a node, or raises Decline.

    A node that is not linear, a maximum or an activation costs what any node costs, whatever it
    works on.
    """
    known = {node: _read(node, linear) for node in nodes}
    inner = {
        value.producer()
        for meaning in known.values()
        if isinstance(meaning, Applied | Transparent)
        for value in meaning.through
    }
    total = Potential()
    for node, meaning in known.items():
        total += _potential(node, None if node in inner else meaning, node in inner, cost)
    return total


def _read(node: ir.Node, linear: Callable[[ir.Node], Linear]) -> Linear | None:
    if node.op_type in ACTIVATIONS:
        return None
    try:
        meaning = linear(node)
    except Decline:
        return None
    is_maximum = isinstance(meaning, Transparent) and meaning.positive
    return None if is_maximum else meaning


def _potential(node: ir.Node, meaning: Linear | None, is_inner: bool, cost: CostModel) -> Potential:
    norms = int(node.op_type in NORMS)
    pooled = int(node.op_type in ACTIVATIONS and _made_by(node.inputs[0], "MaxPool"))
    if meaning is None:
        seconds, parameters = 0.0 if is_inner else cost.profile.node, 0
    else:
        own = node_cost(meaning, node, cost)
        seconds, parameters = own.seconds, own.parameters
    return Potential(norms, round(seconds * UNITS), parameters, 1, pooled)


def _made_by(value: ir.Value | None, op_type: str) -> bool:
    node = value.producer() if value is not None else None
    return node is not None and node.op_type == op_type
