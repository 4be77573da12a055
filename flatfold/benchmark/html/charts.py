"""The parts of charts: an SVG canvas, axes with their ticks, and the look of each row."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

from markupsafe import Markup

from flatfold.benchmark.report import FLATFOLD, TRAINING, ModelReport, Row
from flatfold.text import one_line

LOOKS = 6  # CSS classes for rows that are neither flatfold nor the training graph

Point = tuple[float, float]


class Canvas:
    """An SVG element for an HTML page; the style sheet of the page gives each class its colour."""

    def __init__(self, width: float, height: float, title: str, description: str) -> None:
        self.width, self.height = width, height
        box = f"0 0 {_number(width)} {_number(height)}"
        self.root = ElementTree.Element("svg", {"viewBox": box, "class": "chart", "role": "img"})
        for tag, text in (("title", title), ("desc", description)):
            ElementTree.SubElement(self.root, tag).text = one_line(text)

    def add(self, tag: str, look: str, text: str = "", /, **places: float) -> ElementTree.Element:
        """Adds an element of the class `look`; underscores in attribute names become hyphens."""
        attributes = {name.replace("_", "-"): _number(value) for name, value in places.items()}
        element = ElementTree.SubElement(self.root, tag, {"class": look, **attributes})
        if text:
            element.text = one_line(text)
        return element

    def line(self, look: str, start: Point, end: Point) -> None:
        self.add("line", look, x1=start[0], y1=start[1], x2=end[0], y2=end[1])

    def text(self, look: str, at: Point, text: str, most: int = 0) -> None:
        """A text, cut to `most` characters; the whole text shows on hovering."""
        short = one_line(text)
        if most and len(short) > most:
            element = self.add("text", look, x=at[0], y=at[1])
            ElementTree.SubElement(element, "title").text = short
            element[0].tail = f"{short[: most - 1]}…"
            return
        self.add("text", look, short, x=at[0], y=at[1])

    def path(self, look: str, points: Iterable[Point]) -> None:
        text = "L".join(f"{_number(x)},{_number(y)}" for x, y in points)
        self.add("path", look).set("d", f"M{text}")

    def specks(self, look: str, points: Iterable[Point]) -> None:
        """A round dot at each point, as wide as the line: hundreds of them in one element."""
        text = "".join(f"M{_number(x)},{_number(y)}h0" for x, y in points)
        self.add("path", look).set("d", text)

    def note(self, element: ElementTree.Element, text: str) -> None:
        """A text that shows on hovering over the element."""
        ElementTree.SubElement(element, "title").text = one_line(text)

    def markup(self) -> Markup:
        return Markup(
            ElementTree.tostring(self.root, encoding="unicode")
        )  # ElementTree escapes texts


@dataclass(frozen=True)
class Axis:
    """Values from `low` to `high` along pixels from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    @classmethod
    def around(
        cls, values: Iterable[float], start: float, end: float, *, margin: float = 0.06
    ) -> Axis:
        """An axis that shows all values; logarithmic if they differ by more than a factor of 4."""
        drawable = [value for value in values if math.isfinite(value) and value > 0] or [1.0]
        low, high = min(drawable), max(drawable)
        if high > 4 * low:
            room = (high / low) ** margin
            return cls(low / room, high * room, start, end, True)
        room = max((high - low) * margin, high * 0.005)
        return cls(low - room, high + room, start, end)

    def at(self, value: float) -> float:
        """The pixel of a value; a value outside the axis is drawn at the nearer end."""
        inside = min(max(value, self.low), self.high)
        if self.log:
            share = math.log(inside / self.low) / math.log(self.high / self.low)
        else:
            share = (inside - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self, most: int = 6) -> Sequence[float]:
        """Round values inside the axis, about `most` of them."""
        return _log_ticks(self, most) if self.log else _linear_ticks(self, most)


def _linear_ticks(axis: Axis, most: int) -> list[float]:
    rough = (axis.high - axis.low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * n for n in (1, 2, 5, 10) if power * n >= rough * (1 - 1e-9))
    first, last = math.ceil(axis.low / step - 1e-9), math.floor(axis.high / step + 1e-9)
    return [n * step for n in range(first, last + 1)]


def _log_ticks(axis: Axis, most: int) -> list[float]:
    decades = range(math.floor(math.log10(axis.low)), math.ceil(math.log10(axis.high)) + 1)
    for digits in ((1, 2, 3, 4, 5, 6, 7, 8, 9), (1, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,)):
        candidates = [n * 10.0**power for power in decades for n in digits]
        inside = [value for value in candidates if axis.low <= value <= axis.high]
        if len(inside) <= most:
            break
    return inside[:: max(1, math.ceil(len(inside) / most))]


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def look(model: ModelReport, row: Row) -> str:
    """The CSS class of a row, the same for a candidate on all targets."""
    if row.wrong:
        return "wrong"
    if row.variant in (FLATFOLD, TRAINING):
        return row.variant
    names = dict.fromkeys(r.variant for r in model.rows if r.variant not in (FLATFOLD, TRAINING))
    return f"other{list(names).index(row.variant) % LOOKS + 1}"


def legend(model: ModelReport, rows: Iterable[Row]) -> list[tuple[str, str]]:
    """(look, name) of each row."""
    return [(look(model, row), row.variant) for row in rows]
