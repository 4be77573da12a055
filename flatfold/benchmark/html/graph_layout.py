"""A graph as an SVG: boxes in layers, from the inputs at the top.

The layer of a box is the length of the longest path to it. The order in each layer is the one with
the fewest crossings in a number of sweeps; each box is as near to its neighbours as the widths
allow. The same graph gives the same bytes. A picture is either a separate file that contains its
colours (FILE), or part of an HTML page whose style sheet sets them (PAGE).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, pairwise
from xml.sax.saxutils import escape

LAYER_GAP, BOX_GAP, MARGIN = 26, 16, 16
SWEEPS, SETTLING = 12, 100
SPINE = 10**6  # `firm` of the boxes on a longest path
STRAIGHT = 3  # pixels by which the ends of a straight line may differ


@dataclass(frozen=True)
class Style:
    """The first lines of the SVG, and the attributes of boxes by kind and of lines of text.

    `top` is the space above the first layer and `label` the width of a character of the title, both
    in pixels.
    """

    head: str
    boxes: Mapping[str, str]
    lines: tuple[str, str]
    top: int
    label: int


FILE = Style(
    """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}"\
 font-family="Helvetica, Arial, sans-serif" font-size="13" text-anchor="middle" role="img"\
 aria-labelledby="title">
<title id="title">{title}</title>
<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7"\
 orient="auto"><path d="M0,0 L8,4 L0,8 z" fill="#444"/></marker></defs>
<rect width="{width}" height="{height}" rx="8" fill="#fff"/>
<text x="{centre}" y="26" font-weight="bold" fill="#222">{title}</text>
<g stroke="#444" stroke-width="1.5" fill="none" marker-end="url(#tip)">""",
    {
        "layer": 'fill="#dbe9f6" stroke="#2b5c8a"',
        "norm": 'fill="#fbe5c8" stroke="#9a6516"',
        "": 'fill="#ececec" stroke="#666"',
    },
    ('fill="#111"', 'fill="#444"'),
    top=40,
    label=8,
)
# The page defines the marker.
PAGE = Style(
    """\
<svg class="sketch" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img"\
 aria-label="{title}">
<g class="edges" marker-end="url(#tip)">""",
    {"layer": 'class="layer"', "norm": 'class="norm"', "": 'class="plain"'},
    ('class="name"', 'class="more"'),
    top=8,
    label=0,
)


@dataclass(eq=False)
class Box:
    """An element of a layer: a node, an input or output (no `kind`), or a bend of an edge."""

    lines: tuple[str, ...] = ()
    kind: str | None = None
    layer: int = 0
    x: float = 0.0
    above: list[Box] = field(default_factory=list)
    below: list[Box] = field(default_factory=list)
    column: list[Box] = field(default_factory=list)  # for a bend: all bends of its edge
    firm: int = 8  # weight of its wanted place against that of its neighbours

    @property
    def width(self) -> int:
        return max(84, *(7 * len(line) + 18 for line in self.lines)) if self.lines else 12

    @property
    def height(self) -> int:
        return 11 + 17 * len(self.lines) if self.lines else 0


Edge = tuple[Box, Box]
Route = list[Box]  # an edge, with a bend in each layer between its ends
Layers = list[list[Box]]


def svg(boxes: Sequence[Box], edges: Sequence[Edge], title: str, style: Style = FILE) -> str:
    """The picture of `boxes`; an edge (upper, lower) leads down from one to the other."""
    for upper, lower in edges:
        lower.layer = max(lower.layer, upper.layer + 1)
    routes = [routed(upper, lower) for upper, lower in edges]
    layers = ordered(boxes, routes)
    settle(layers)
    tops = [style.top]
    for layer in layers:
        tops.append(tops[-1] + max(box.height for box in layer) + LAYER_GAP)
    width = centred(layers, style.label * len(title) + 2 * MARGIN)
    size = {"width": width, "height": tops[-1] - LAYER_GAP + MARGIN, "centre": width // 2}
    arriving = {box: [route for route in routes if route[-1] is box] for box in boxes}
    lines = [style.head.format(title=escape(title, {'"': "&quot;"}), **size)]
    lines += [f'<path d="{curve(route, arriving[route[-1]], tops)}"/>' for route in routes]
    lines += ["</g>", *(line for box in boxes for line in drawn(box, tops[box.layer], style))]
    return "\n".join([*lines, "</svg>"]) + "\n"


def routed(upper: Box, lower: Box) -> Route:
    route = [upper, *(Box(layer=n) for n in range(upper.layer + 1, lower.layer)), lower]
    for one, two in pairwise(route):
        one.below.append(two)
        two.above.append(one)
    for bend in route[1:-1]:
        bend.column, bend.firm = route[1:-1], 1
    return route


def ordered(boxes: Sequence[Box], routes: Sequence[Route]) -> Layers:
    """The boxes and bends of each layer from left to right."""
    layers: Layers = [[] for _ in range(1 + max(box.layer for box in boxes))]
    for box in dict.fromkeys([*boxes, *(box for route in routes for box in route)]):
        layers[box.layer].append(box)
    best, fewest = [list(layer) for layer in layers], crossings(layers)
    for sweep in range(SWEEPS):
        down = sweep % 2 == 0
        places = {box: at for layer in layers for at, box in enumerate(layer)}
        for layer in layers if down else layers[::-1]:
            heights = {
                box: mean([places[n] for n in (box.above if down else box.below)], places[box])
                for box in layer
            }
            layer.sort(key=heights.__getitem__)
            places.update((box, at) for at, box in enumerate(layer))
        count = crossings(layers)
        if count < fewest:
            best, fewest = [list(layer) for layer in layers], count
    return best


def crossings(layers: Layers) -> int:
    places = {box: at for layer in layers for at, box in enumerate(layer)}
    lines = [[(places[b], places[n]) for b in layer for n in b.below] for layer in layers]
    pairs = (pair for between in lines for pair in combinations(between, 2))
    return sum((a - c) * (b - d) < 0 for (a, b), (c, d) in pairs)


def settle(layers: Layers) -> None:
    """Sets the x of each box and keeps the order in each layer; a longest path is straight."""
    spine = layers[-1][0]
    while spine.above:
        spine.firm = SPINE
        spine = next(box for box in spine.above if box.layer == spine.layer - 1 and box.lines)
    spine.firm = SPINE
    for layer in layers:
        spread(layer, [0.0] * len(layer))
    for sweep in range(SETTLING):
        for layer in layers if sweep % 2 else layers[::-1]:
            goals = [pulled(box, spine.x, outwards=sweep > SETTLING // 2) for box in layer]
            spread(layer, goals)


def pulled(box: Box, middle: float, outwards: bool) -> float:
    """The x that the neighbours of the box ask for: their weighted mean.

    The bends of one edge are placed on a vertical line: first near the mean of their places, then
    (`outwards`) as far from the `middle` as the outermost of them.
    """
    near = [*box.above, *box.below, *box.column]
    if box.column and outwards:
        places = [bend.x for bend in box.column]
        return max(places) if mean(places) > middle else min(places)
    firm = [box.firm if box.firm == other.firm else 1 for other in near]
    return sum(other.x * n for other, n in zip(near, firm, strict=True)) / sum(firm)


def spread(layer: Sequence[Box], wanted: Sequence[float]) -> None:
    """Sets the x of each box as near to `wanted` as the widths allow, by least squares."""
    offsets = [0.0]
    for one, two in pairwise(layer):
        offsets.append(offsets[-1] + (one.width + two.width) / 2 + BOX_GAP)
    # For each group of touching boxes: count, total weight, and weighted sum of the wanted places.
    groups: list[tuple[int, float, float]] = []
    for box, goal, offset in zip(layer, wanted, offsets, strict=True):
        groups.append((1, box.firm, box.firm * (goal - offset)))
        while len(groups) > 1 and groups[-2][2] / groups[-2][1] >= groups[-1][2] / groups[-1][1]:
            (n, a, b), (m, c, d) = groups[-2:]
            groups[-2:] = [(n + m, a + c, b + d)]
    places = [total / weight for count, weight, total in groups for _ in range(count)]
    for box, place, offset in zip(layer, places, offsets, strict=True):
        box.x = place + offset


def mean(numbers: Sequence[float], otherwise: float = 0.0) -> float:
    return sum(numbers) / len(numbers) if numbers else otherwise


def centred(layers: Layers, least: int) -> int:
    """Moves the boxes to the middle of the picture; returns its width, at `least` this much."""
    boxes = [box for layer in layers for box in layer]
    left = min(box.x - box.width / 2 for box in boxes)
    right = max(box.x + box.width / 2 for box in boxes)
    width = max(least, round(right - left) + 2 * MARGIN)
    for box in boxes:
        box.x = round(box.x - (left + right) / 2 + width / 2)
    return width


def curve(route: Route, arriving: Sequence[Route], tops: Sequence[int]) -> str:
    """The path of an edge, downwards; edges that end at one box end at different points."""
    arrivals = sorted(arriving, key=lambda other: other[-2].x)
    port = 16 * next(at for at, other in enumerate(arrivals) if other is route)
    port -= 8 * len(arrivals) - 8
    x, y = round(route[0].x), tops[route[0].layer] + route[0].height
    path = f"M{x},{y}"
    for box in route[1:]:
        last = box is route[-1]
        goal, top = round(box.x) + port * last, tops[box.layer]
        if abs(goal - x) <= STRAIGHT:
            path += f" V{top}"
        else:
            path += f" C{x},{(y + top) // 2} {goal},{(y + top) // 2} {goal},{top}"
            x = goal
        y = tops[box.layer + 1] - LAYER_GAP
        path += "" if last else f" V{y}"
    return path


def drawn(box: Box, top: int, style: Style) -> Iterator[str]:
    """The box, if it is a node, and its lines of text, of which the first is the name."""
    x = round(box.x)
    if box.kind is not None:
        place = f'x="{x - box.width // 2}" y="{top}" width="{box.width}" height="{box.height}"'
        yield f'<rect {place} rx="4" {style.boxes[box.kind]}/>'
    for at, line in enumerate(box.lines):
        look = style.lines[min(at, 1)]
        yield f'<text x="{x}" y="{top + 18 + 17 * at}" {look}>{escape(line)}</text>'
