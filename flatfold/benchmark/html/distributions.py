"""Charts of the distribution of run times and of their drift, for the rows of one target."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import zip_longest

import numpy as np
from markupsafe import Markup

from flatfold.benchmark.html.charts import Axis, Canvas, look
from flatfold.benchmark.report import ModelReport, Row
from flatfold.text import duration, time_unit

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 440, 270, 46, 44, 12, 12
QUANTILES = 120
TAIL = 99.5  # per cent; slower runs would stretch the axis, so the slowest is given as a number


def shown(model: ModelReport, target: str) -> list[Row]:
    """The rows whose times are compared on this target."""
    return [row for row in model.rows if row.target == target and row.ranked]


def cumulative(model: ModelReport, target: str) -> Markup:
    """The cumulative distribution: for each time the share of runs that took no longer."""
    rows = {row: runs(row) for row in shown(model, target)}
    if not rows:
        return Markup()
    ends = [np.percentile(times, q) for times in rows.values() for q in (0, TAIL)]
    axis = Axis.around(map(float, ends), LEFT, WIDTH - RIGHT, margin=0.03)
    canvas = Canvas(
        WIDTH,
        HEIGHT,
        f"Cumulative distribution of the runs on {target}",
        "; ".join(f"{row.variant}: {len(times)} runs" for row, times in rows.items()),
    )
    floor = HEIGHT - BOTTOM
    heights = Axis(0, 100, floor, TOP)
    for share in (0, 25, 50, 75, 100):
        y = heights.at(share)
        canvas.line("grid", (LEFT, y), (WIDTH - RIGHT, y))
        canvas.text("tick end", (LEFT - 6, y + 4), f"{share} %")
    _time_axis(canvas, axis, floor)
    for row, times in rows.items():
        shares = np.linspace(0, TAIL, min(QUANTILES, len(times)))
        values = np.percentile(times, shares)
        points = [
            (axis.at(float(x)), heights.at(float(q))) for x, q in zip(values, shares, strict=True)
        ]
        canvas.path(f"curve {look(model, row)}", points)
    return canvas.markup()


def strip(model: ModelReport, target: str) -> Markup:
    """The median of each block, in the order in which they ran, process by process."""
    rows = {row: medians(row) for row in shown(model, target)}
    rounds = zip_longest(*rows.values(), fillvalue=[])
    sizes = [
        max(map(len, processes)) for processes in rounds
    ]  # decided rows are not timed in later rounds
    begins, count = [sum(sizes[:number]) for number in range(len(sizes))], sum(sizes)
    if count < 2:
        return Markup()
    values = [value for processes in rows.values() for process in processes for value in process]
    axis = Axis.around(values, HEIGHT - BOTTOM, TOP)
    places = Axis(0, count - 1, LEFT + 8, WIDTH - RIGHT - 8)
    title = f"Medians of the blocks on {target}, in the order in which they ran"
    canvas = Canvas(WIDTH, HEIGHT, title, "Broken lines are where new processes began")
    size, unit = time_unit(axis.high)
    for tick in axis.ticks(5):
        y = axis.at(tick)
        canvas.line("grid", (LEFT, y), (WIDTH - RIGHT, y))
        canvas.text("tick end", (LEFT - 6, y + 4), f"{tick / size:.4g}")
    canvas.text("tick", (0, TOP - 2), unit)
    for number, (begin, size) in enumerate(zip(begins, sizes, strict=True), 1):
        if size == 0:
            continue  # no row of this target was timed in this round
        if begin:
            x = places.at(begin - 0.5)
            canvas.line("border", (x, TOP), (x, HEIGHT - BOTTOM))
        centre = places.at(begin + (size - 1) / 2)
        canvas.text("tick middle", (centre, HEIGHT - BOTTOM + 18), str(number))
    middle = (LEFT + WIDTH - RIGHT) / 2
    canvas.text("axis middle", (middle, HEIGHT - 6), "rounds of fresh processes, blocks inside")
    for row, processes in rows.items():
        _trace(canvas, axis, places, look(model, row), dict(zip(begins, processes, strict=False)))
    return canvas.markup()


def beyond(model: ModelReport, target: str) -> list[tuple[Row, str]]:
    """(row, time) of the slowest run of each row, which the curves do not show."""
    return [(row, duration(float(max(runs(row))))) for row in shown(model, target)]


def runs(row: Row) -> list[float]:
    return [run for process in row.samples_s for block in process for run in block]


def medians(row: Row) -> list[list[float]]:
    return [[float(np.median(block)) for block in process] for process in row.samples_s]


def _trace(
    canvas: Canvas, axis: Axis, places: Axis, name: str, processes: Mapping[int, list[float]]
) -> None:
    """Draws a line for each process; `processes` maps the index of its first block to medians."""
    for begin, process in processes.items():
        if not process:
            continue
        points = [(places.at(at), axis.at(value)) for at, value in enumerate(process, begin)]
        canvas.path(f"trace {name}", points)
        canvas.specks(f"speck {name}", points)


def _time_axis(canvas: Canvas, axis: Axis, floor: float) -> None:
    size, unit = time_unit(axis.high)
    for tick in axis.ticks(5):
        x = axis.at(tick)
        canvas.line("grid", (x, TOP), (x, floor))
        canvas.text("tick middle", (x, floor + 18), f"{tick / size:.4g}")
    text = f"{unit} a run{', logarithmic' if axis.log else ''}"
    canvas.text("axis middle", ((axis.start + axis.end) / 2, HEIGHT - 6), text)
