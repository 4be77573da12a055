"""The waterfall chart: how the time falls as rewrites are added one by one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from flatfold.benchmark.html.charts import Axis, Canvas
from flatfold.benchmark.report import ModelReport, StepReport
from flatfold.benchmark.views import sentences

WIDTH, LEFT, RIGHT, STEP = 780, 210, 190, 30


@dataclass(frozen=True)
class Level:
    """A step, and the time as a share of that of the training graph, before and after it."""

    step: StepReport
    before: float
    after: float


def levels(model: ModelReport, target: str) -> list[Level]:
    """The levels of a target: products of the ratios of each step to the one before."""
    steps: list[Level] = []
    now = 1.0
    for step in model.steps:
        if step.target == target:
            then, now = now, now * (step.ratio.value if step.ratio is not None else 1.0)
            steps.append(Level(step, then, now))
    return steps


def waterfall(model: ModelReport, target: str) -> Markup:
    """A bar from 0 for the training graph, one for the effect of each step, one for the outcome."""
    steps = levels(model, target)
    if not any(level.step.ratio for level in steps):
        return Markup()
    bottom = 8 + STEP * (len(steps) + 1)
    title = f"Time on {target} as rewrites are added, as a share of the training graph's"
    shares = "; ".join(f"{name(level.step)}: {100 * level.after:.3g} %" for level in steps)
    canvas = Canvas(WIDTH, bottom + 42, title, shares)
    axis = Axis(0, max(1.05, *(level.after * 1.05 for level in steps)), LEFT, WIDTH - RIGHT)
    for tick in axis.ticks():
        x = axis.at(tick)
        canvas.line("grid", (x, 8), (x, bottom))
        canvas.text("tick middle", (x, bottom + 18), f"{100 * tick:.0f} %")
    axis_text = "of the time of the training graph"
    canvas.text("axis middle", ((axis.start + axis.end) / 2, bottom + 36), axis_text)
    for y, text, start, end, kind, value in _bars(steps):
        left, right = sorted((axis.at(start), axis.at(end)))
        canvas.text("label end", (LEFT - 14, y + 17), text, 28)
        width = max(right - left, 2)
        canvas.add("rect", f"step {kind}", x=left, y=y + 4, width=width, height=STEP - 12)
        canvas.text("value", (WIDTH - RIGHT + 16, y + 17), value)
    _joints(canvas, axis, steps)
    return canvas.markup()


def _bars(steps: Sequence[Level]) -> Iterator[tuple[float, str, float, float, str, str]]:
    """(top, label, start, end, class, value) of each bar."""
    for number, level in enumerate(steps):
        y = 8.0 + STEP * number
        if not level.step.rewrite:
            yield y, name(level.step), 0, level.after, "training", f"{100 * level.after:.3g} %"
        else:
            kind = level.step.verdict or "unchanged"
            yield y, name(level.step), level.before, level.after, kind, _effect(level.step)
    last = steps[-1].after
    yield 8.0 + STEP * len(steps), "all of them", 0, last, "flatfold", f"{100 * last:.3g} %"


def _effect(step: StepReport) -> str:
    if step.ratio is None:
        return "not timed" if step.applied else "nothing to do"
    return sentences.speed(step.ratio, step.verdict)


def _joints(canvas: Canvas, axis: Axis, steps: Sequence[Level]) -> None:
    for number, level in enumerate(steps):
        x, y = axis.at(level.after), 8 + STEP * number
        canvas.line("joint", (x, y + STEP - 8), (x, y + STEP + 4))


def name(step: StepReport) -> str:
    return step.rewrite or "training graph"
