"""The graph before and after, block by block, and every decision on the way."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from flatfold.comparing.explained import Block, Changes, Decision, Sketch
from flatfold.comparing.sketches import sketch_of
from flatfold.decisions import Places, grouped, nodes_of
from flatfold.passes.remark import REPLACED_KEY, REWRITE_KEY, origins
from flatfold.summary import summarise

if TYPE_CHECKING:
    import onnx_ir as ir

    from flatfold.result import Optimized

Replaced = tuple[str, tuple[str, ...]]  # a rewrite, and the names of the nodes it stands for


def changes_of(target: str, result: Optimized) -> Changes:
    """What `result` is beside its training graph."""
    places = Places(result)
    remarks = places.in_order(result.remarks)
    decisions = tuple(
        Decision(
            group.first.rewrite,
            group.first.applied,
            group.first.code,
            group.first.reason,
            group.first.hint,
            group.places,
        )
        for group in grouped(remarks, places)
    )
    return Changes(
        target,
        summarise(result.training).operators,
        summarise(result.graph).operators,
        tuple(_blocks(result, places)),
        decisions,
    )


def _blocks(result: Optimized, places: Places) -> Iterable[Block]:
    """Those of one shape as one, drawn as the first of them; the most frequent ones first."""
    training = list(nodes_of(result.training))
    by_name: dict[str, list[ir.Node]] = {}
    for node in training:
        by_name.setdefault(node.name or "", []).append(node)
    order = {node: index for index, node in enumerate(training)}
    found: dict[object, Block] = {}
    for (rewrite, names), after in _replacements(result).items():
        nodes = {node for name in names for node in by_name.get(name, ())}
        before = sketch_of(sorted(nodes, key=order.__getitem__))
        now = sketch_of(after)
        place = places.around(names) or names[0]
        key = rewrite, _shape(before), _shape(now)
        known = found.get(key)
        others = known.places if known else ()
        first = known or Block(rewrite, (), before, now)
        found[key] = Block(rewrite, (*others, place), first.before, first.after)
    return sorted(found.values(), key=lambda block: -len(block.places))


def _replacements(result: Optimized) -> dict[Replaced, list[ir.Node]]:
    """What stands in the rewritten graph for which nodes; nothing, where they just went away."""
    found: dict[Replaced, list[ir.Node]] = {}
    covered: set[str] = set()
    for node in nodes_of(result.graph):
        if REPLACED_KEY in node.metadata_props:
            names = origins([node])
            covered.update(names)
            found.setdefault((node.metadata_props.get(REWRITE_KEY, ""), names), []).append(node)
    for remark in result.remarks:
        if remark.applied and remark.replaced and not covered.issuperset(remark.replaced):
            found.setdefault((remark.rewrite, remark.replaced), [])
    return found


def _shape(sketch: Sketch) -> tuple[Sequence[str], Sequence[tuple[int, int]]]:
    """What two blocks of the same kind have in common: operators and edges, no sizes."""
    return tuple(box.lines[0] for box in sketch.boxes), sketch.edges
