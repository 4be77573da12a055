"""The pictures of the families are those of their graphs, and are readable."""

from __future__ import annotations

import re
from itertools import combinations
from xml.etree import ElementTree

import pytest

from docs.pictures import BLOCKS, FOLDER, pictures
from flatfold.benchmark.html.graph_layout import Box, crossings, ordered, routed, settle, svg
from flatfold.models import FAMILIES

QUICK = ("mobilenext", "repvgg")
DRAWN = sorted(FOLDER.glob("*.svg"))
SVG = "{http://www.w3.org/2000/svg}"
# Widths of Helvetica in thousandths of its size; what is not listed is no wider than WIDEST.
WIDTHS = {
    **dict.fromkeys(" ,.:", 278),
    **dict.fromkeys("filtjr", 333),
    **dict.fromkeys("0123456789abcdeghknopqsuvxyz", 556),
}
WIDEST = 1000


@pytest.mark.parametrize(
    "family", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in BLOCKS]
)
def test_a_picture_is_that_of_the_graph(family: str) -> None:
    """Else `make pictures` draws it again."""
    for name, text in pictures(family).items():
        assert (FOLDER / name).read_text("utf-8") == text, name


def test_every_family_with_a_page_is_listed_and_has_its_pictures() -> None:
    pages = {path.stem for path in FOLDER.glob("*.md")} - {"README"}
    index = (FOLDER / "README.md").read_text("utf-8")
    assert pages <= set(FAMILIES)
    assert re.findall(r"^\| \[[^]]+\]\((\w+)\.md\) \|", index, re.MULTILINE) == sorted(pages)
    assert pages == set(BLOCKS)
    for family in pages:
        page = (FOLDER / f"{family}.md").read_text("utf-8")
        assert f"]({family}_before.svg)" in page and f"]({family}_after.svg)" in page
    names = {f"{family}_{when}" for family in pages for when in ("before", "after")}
    assert {path.stem for path in DRAWN} == names


@pytest.mark.parametrize("path", DRAWN, ids=lambda path: path.stem)
def test_a_picture_can_be_read(path) -> None:
    """No box or text overlaps another or leaves the picture, and edges end at boxes or text."""
    root = ElementTree.parse(path).getroot()
    assert root.get("role") == "img"
    assert root.findtext(f"{SVG}title")
    picture, *boxes = (rectangle(element) for element in root.findall(f"{SVG}rect"))
    for one, two in combinations(boxes, 2):
        assert not overlap(one, two)
    texts = [(line(element), element.text) for element in root.findall(f"{SVG}text")]
    for place, text in texts:
        assert overlap(place, picture) == place, text
        for box in boxes:
            assert overlap(place, box) in (None, place), text
    for box in boxes:
        assert overlap(box, picture) == box
    tops = {top for _, top, _, _ in boxes} | {top - 8 for (_, top, _, _), _ in texts}
    for element in root.iterfind(f"{SVG}g/{SVG}path"):
        assert float(re.split(r"[ ,VC]", element.get("d"))[-1]) in tops, "an edge ends in the air"


Rectangle = tuple[float, float, float, float]


def rectangle(element: ElementTree.Element) -> Rectangle:
    """(left, top, right, bottom)."""
    left, top, width, height = (float(element.get(k, 0)) for k in ("x", "y", "width", "height"))
    return left, top, left + width, top + height


def line(element: ElementTree.Element) -> Rectangle:
    """Where a line of text is; the text is in its middle."""
    x, y = float(element.get("x")), float(element.get("y"))
    units = sum(WIDTHS.get(character, WIDEST) for character in element.text)
    half = 13 * units / 1000 / 2
    return x - half, y - 10, x + half, y + 3


def overlap(one: Rectangle, two: Rectangle) -> Rectangle | None:
    left, top, right, bottom = (*map(max, one[:2], two[:2]), *map(min, one[2:], two[2:]))
    return (left, top, right, bottom) if left < right and top < bottom else None


def test_a_box_is_as_far_down_as_its_longest_path() -> None:
    a, b, c, d = (Box((name,), "") for name in "abcd")
    svg([a, b, c, d], [(a, b), (a, d), (b, c), (c, d)], "title")
    assert [box.layer for box in (a, b, c, d)] == [0, 1, 2, 3]
    assert a.x == b.x == c.x == d.x  # the longest path is straight


def test_edges_cross_only_where_they_must() -> None:
    boxes = [Box((name,), "", at // 3) for at, name in enumerate("abcdef")]
    a, b, c, d, e, f = boxes
    layers = ordered(boxes, [routed(a, f), routed(b, e), routed(c, d)])
    assert crossings(layers) == 0
    settle(layers)
    assert a.x == f.x and b.x == e.x and c.x == d.x


def test_text_is_escaped_and_the_same_graph_gives_the_same_bytes() -> None:
    def drawn() -> str:
        one, two = Box(("a < b & c",), "layer"), Box(("d",))
        return svg([one, two], [(one, two)], "<title>")

    assert drawn() == drawn()
    assert ElementTree.fromstring(drawn()).findtext(f"{SVG}title") == "<title>"
