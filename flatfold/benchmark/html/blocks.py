"""The blocks of a graph as pictures."""

from __future__ import annotations

from collections import Counter
from graphlib import CycleError, TopologicalSorter

from markupsafe import Markup

from flatfold.benchmark.html import graph_layout
from flatfold.benchmark.report import GraphChange, Sketch
from flatfold.text import one_line

LARGEST = 60  # boxes; a larger sketch is given as counts of its operators
LONGEST = 40  # characters of a line
KINDS = {"": None, "other": "", "layer": "layer", "norm": "norm"}  # those of `graph_layout.Box`


def picture(sketch: Sketch, title: str) -> Markup:
    """A sketch as an SVG; empty if it is too large, cyclic, or an edge names a missing box."""
    order = _order(sketch) if len(sketch.boxes) <= LARGEST else {}
    if not order:
        return Markup()
    boxes = [
        graph_layout.Box(tuple(map(_cut, box.lines)) or ("?",), KINDS.get(box.kind, ""))
        for box in sketch.boxes
    ]
    inwards = sorted(sketch.edges, key=lambda edge: order[edge[1]])
    edges = [(boxes[upper], boxes[lower]) for upper, lower in inwards]
    svg = graph_layout.svg(boxes, edges, one_line(title), graph_layout.PAGE)  # escapes its texts
    return Markup(svg)


def operators(sketch: Sketch) -> list[tuple[str, int]]:
    """(operator, count) of each operator, the most frequent first."""
    nodes = (box.lines[0].split(" ")[0] for box in sketch.boxes if box.kind and box.lines)
    return Counter(nodes).most_common()


def _order(sketch: Sketch) -> dict[int, int]:
    """The position of each box in a topological order; empty if there is none."""
    feeding: dict[int, list[int]] = {number: [] for number in range(len(sketch.boxes))}
    for upper, lower in sketch.edges:
        if upper not in feeding or lower not in feeding:
            return {}
        feeding[lower].append(upper)
    try:
        return {box: place for place, box in enumerate(TopologicalSorter(feeding).static_order())}
    except CycleError:
        return {}


def _cut(line: str) -> str:
    text = one_line(line)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def side_by_side(changes: GraphChange) -> list[tuple[str, int, int]]:
    """(operator, count before, count after), the largest changes first."""
    before, after = changes.operators_before, changes.operators_after
    counts = [(name, before.get(name, 0), after.get(name, 0)) for name in {**before, **after}]
    return sorted(counts, key=lambda row: (-abs(row[1] - row[2]), -row[1], row[0]))
