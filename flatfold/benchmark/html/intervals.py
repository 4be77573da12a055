"""Latencies as dots with their intervals, and as bars inside a table."""

from __future__ import annotations

from collections.abc import Iterable

from markupsafe import Markup

from flatfold.benchmark.html.charts import Axis, Canvas, look
from flatfold.benchmark.report import ModelReport, Row
from flatfold.benchmark.views import sentences
from flatfold.text import digits, duration, time_unit

WIDTH, LEFT, RIGHT, STEP, TOP = 780, 130, 176, 28, 6
BAR = 100


def intervals(model: ModelReport, target: str) -> Markup:
    """A dot for each row that may be compared, and the noise floor around the reference."""
    rows = [row for row in sentences.ordered(model) if row.target == target and row.ranked]
    if not rows:
        return Markup()
    bottom = TOP + STEP * len(rows)
    title = f"Latency of {model.model} on {target}"
    canvas = Canvas(WIDTH, bottom + 44, title, "The median and its 95 % interval by row")
    axis = Axis.around(_reach(model, rows), LEFT, WIDTH - RIGHT)
    _grid(canvas, axis, bottom)
    _band(canvas, axis, model, target, bottom)
    for number, row in enumerate(rows):
        _dot(canvas, axis, model, row, TOP + STEP * (number + 0.5))
    return canvas.markup()


def _reach(model: ModelReport, rows: Iterable[Row]) -> Iterable[float]:
    """The seconds the axis must show: medians, bounds of the intervals, and of the noise band."""
    for row in rows:
        assert row.latency is not None
        yield from (row.latency.value, *row.latency.interval)
        if row.name == model.reference and model.noise:
            yield from (row.latency.value * bound for bound in _floor(model))


def _floor(model: ModelReport) -> tuple[float, float]:
    """The noise floor, as factors around 1."""
    reach = 1 + (model.noise.deviation if model.noise else 0)
    return 1 / reach, reach


def _grid(canvas: Canvas, axis: Axis, bottom: float) -> None:
    size, unit = time_unit(axis.high)
    for tick in axis.ticks():
        x = axis.at(tick)
        canvas.line("grid", (x, TOP), (x, bottom))
        canvas.text("tick middle", (x, bottom + 18), f"{tick / size:.4g}")
    scale = ", logarithmic" if axis.log else "; the axis does not begin at 0"
    canvas.text("axis middle", ((axis.start + axis.end) / 2, bottom + 38), f"{unit} a run{scale}")


def _band(canvas: Canvas, axis: Axis, model: ModelReport, target: str, bottom: float) -> None:
    base = model.row(model.reference)
    if base is None or base.latency is None or base.target != target:
        return
    if model.noise is not None:
        left, right = (axis.at(base.latency.value * factor) for factor in _floor(model))
        width = max(right - left, 2)
        band = canvas.add("rect", "noise", x=left, y=TOP, width=width, height=bottom - TOP)
        canvas.note(band, f"noise floor: {sentences.noise(model)} around the training graph")
    x = axis.at(base.latency.value)
    canvas.line("reference", (x, TOP), (x, bottom))


def _dot(canvas: Canvas, axis: Axis, model: ModelReport, row: Row, y: float) -> None:
    assert row.latency is not None
    low, high = (axis.at(bound) for bound in row.latency.interval)
    name = look(model, row)
    canvas.text("label end", (LEFT - 14, y + 4), row.variant, 17)
    canvas.line(f"span {name}", (low, y), (high, y))
    for x in (low, high):
        canvas.line(f"span {name}", (x, y - 6), (x, y + 6))
    dot = canvas.add("circle", f"dot {name}", cx=axis.at(row.latency.value), cy=y, r=4.5)
    time = duration(row.latency.value, row.latency.interval)
    canvas.note(dot, f"{row.name}: {time}")
    canvas.text("value", (WIDTH - RIGHT + 16, y + 4), time)


def bar(model: ModelReport, row: Row) -> Markup:
    """The time of a row as a share of the longest one, from 0."""
    if row.latency is None:
        return Markup()
    longest = max(r.latency.value for r in model.rows if r.latency)
    canvas = Canvas(BAR, 10, f"{duration(row.latency.value)}", f"compared with {duration(longest)}")
    canvas.root.set("class", "bar")
    canvas.root.set("preserveAspectRatio", "none")
    canvas.root.set("aria-hidden", "true")  # the cell has the same number as text
    share = BAR * row.latency.value / longest
    canvas.add("rect", f"fill {look(model, row)}", x=0, y=1, width=max(share, 1), height=8)
    return canvas.markup()


def ratio(headline: sentences.Headline) -> Markup:
    """The time ratio to the training graph and its interval, on a line from 0 to 1.25 or more."""
    if headline.pair is None:
        return Markup()
    estimate = headline.pair.ratio
    axis = Axis(0, max(1.25, estimate.interval[1] * 1.05), 6, 254)
    value = f"{sentences.times(estimate)}, from {' to '.join(map(digits, estimate.interval))}"
    canvas = Canvas(260, 34, "Time ratio to the training graph", value)
    canvas.root.set("class", "chart gauge")
    canvas.line("track", (axis.start, 10), (axis.end, 10))
    one = axis.at(1)
    canvas.line("reference", (one, 2), (one, 18))
    canvas.text("tick middle", (one, 31), "1x")
    canvas.text("tick", (axis.start, 31), "0")
    low, high = (axis.at(bound) for bound in estimate.interval)
    kind = headline.verdict
    canvas.add(
        "rect", f"taken {kind}", x=axis.start, y=7, width=axis.at(estimate.value) - 6, height=6
    )
    canvas.line(f"span {kind}", (low, 10), (high, 10))
    canvas.add("circle", f"dot {kind}", cx=axis.at(estimate.value), cy=10, r=5.5)
    return canvas.markup()
