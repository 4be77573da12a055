"""Shapes, indices and writes in place, as each exporter spells them, in one canonical form."""

from __future__ import annotations

import onnx_ir as ir

from flatfold.frontend.indexing import settle_picks, settle_stacks
from flatfold.frontend.no_ops import settle_no_ops
from flatfold.frontend.sequences import settle_sequences
from flatfold.frontend.shape_constants import settle_integers, settle_reshapes, settle_shapes
from flatfold.frontend.shape_rules import RULES
from flatfold.frontend.shape_values import Facts, facts_of
from flatfold.frontend.targets import settle_targets
from flatfold.frontend.writes import settle_writes

__all__ = ["settle"]

_INPUTS = 13  # the opset from which on axes and sizes are inputs of their operators
_SHAPE_OF_AXES = 15  # the opset from which on Shape has a start and an end


def settle(model: ir.Model) -> bool:
    """One round over the main graph of `model`; whether anything changed.

    - integers computed from known sizes are constants, and so are target shapes;
    - sizes that only a run knows are taken from the inputs of the graph;
    - a write of a box is a Concat of Slices of the old and the new, or a Pad of the new;
    - a list of channels is taken by Gather, parts of a known size by Split;
    - stacked and merged axes are a Concat and a channel shuffle;
    - what changes nothing is an Identity.

    The results are equal to the bit; what cannot be shown to have these forms stays as it is.
    """
    graph, version = model.graph, model.opset_imports.get("", 0)
    if version < _INPUTS:
        return settle_reshapes(graph, Facts())
    facts = facts_of(graph, RULES)
    changed = settle_shapes(facts)
    for step in (
        settle_integers,
        settle_reshapes,
        settle_writes,
        settle_sequences,
        settle_picks,
        settle_stacks,
        settle_no_ops,
    ):
        changed |= step(graph, facts)
    if version >= _SHAPE_OF_AXES:
        changed |= settle_targets(graph, facts)
    return changed
