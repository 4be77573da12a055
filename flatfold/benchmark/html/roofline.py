"""The roofline chart: each row and the limits of this machine (Williams et al. 2009)."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from flatfold.benchmark.html.charts import Axis, Canvas, look
from flatfold.benchmark.report import FLATFOLD, TRAINING, Limit, ModelReport, Report, Row
from flatfold.benchmark.views import sentences
from flatfold.text import quantity

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 780, 320, 96, 46, 18, 20


@dataclass(frozen=True)
class Mark:
    """A row in the chart: FLOP per byte, FLOP/s, and the share of the limit that it reaches."""

    row: Row
    intensity: float
    rate: float
    share: float | None


def limit_of(report: Report, target: str) -> Limit | None:
    return next((limit for limit in report.limits if limit.target == target), None)


def marks(model: ModelReport, target: str) -> list[Mark]:
    marked = []
    for row in sentences.ordered(model):
        if row.target == target and row.ranked and row.latency and row.macs and row.bytes:
            share = row.floor_s / row.latency.value if row.floor_s else None
            rate = 2 * row.macs / row.latency.value
            marked.append(Mark(row, 2 * row.macs / row.bytes, rate, share))
    return marked


def roofline(report: Report, model: ModelReport, target: str) -> Markup:
    """Rows under the slope are limited by memory, rows under the flat line by arithmetic.

    Both axes are logarithmic. Empty if there is no limit or no row.
    """
    limit, rows = limit_of(report, target), marks(model, target)
    if limit is None or not rows or not limit.flops > 0 < limit.bytes:
        return Markup()
    ridge = limit.flops / limit.bytes
    across = [ridge / 4, ridge * 4, *(mark.intensity for mark in rows)]
    x = Axis(min(across) / 1.5, max(across) * 1.5, LEFT, WIDTH - RIGHT, True)
    up = [limit.flops, limit.bytes * x.low, *(mark.rate for mark in rows)]
    y = Axis(min(up) / 1.5, max(up) * 2, HEIGHT - BOTTOM, TOP, True)
    limits = f"At most {quantity(limit.flops, 'FLOP/s')} and {quantity(limit.bytes, 'B/s')}"
    canvas = Canvas(WIDTH, HEIGHT, f"Roofline of {target}", limits)
    _grid(canvas, x, y)
    start = max(x.low, y.low / limit.bytes)
    points = [(start, limit.bytes * start), (ridge, limit.flops), (x.high, limit.flops)]
    canvas.path("roof", [(x.at(a), y.at(b)) for a, b in points])
    flat = quantity(limit.flops, "FLOP/s")
    canvas.text("value end", (WIDTH - RIGHT - 4, y.at(limit.flops) - 8), f"arithmetic: {flat}")
    middle = (start * ridge) ** 0.5
    slope = f"memory: {quantity(limit.bytes, 'B/s')}"
    canvas.text("value end", (x.at(middle) - 12, y.at(limit.bytes * middle) - 4), slope)
    for mark in rows:
        at = x.at(mark.intensity), y.at(mark.rate)
        dot = canvas.add("circle", f"dot {look(model, mark.row)}", cx=at[0], cy=at[1], r=5.5)
        canvas.note(dot, f"{mark.row.name}: {quantity(mark.rate, 'FLOP/s')}")
        if mark.row.variant == FLATFOLD:
            canvas.text("value", (at[0] + 11, at[1] + 4), FLATFOLD)
        if (
            mark.row.variant == TRAINING
        ):  # to the left of the dot: the two are often near each other
            canvas.text("value end", (at[0] - 11, at[1] + 4), TRAINING)
    return canvas.markup()


def _grid(canvas: Canvas, x: Axis, y: Axis) -> None:
    for tick in x.ticks(8):
        canvas.line("grid", (x.at(tick), TOP), (x.at(tick), HEIGHT - BOTTOM))
        canvas.text("tick middle", (x.at(tick), HEIGHT - BOTTOM + 18), f"{tick:.3g}")
    for tick in y.ticks(6):
        canvas.line("grid", (LEFT, y.at(tick)), (WIDTH - RIGHT, y.at(tick)))
        canvas.text("tick end", (LEFT - 8, y.at(tick) + 4), quantity(tick, "FLOP/s"))
    middle = (x.start + x.end) / 2
    canvas.text("axis middle", (middle, HEIGHT - 6), "operations for each byte moved, logarithmic")
