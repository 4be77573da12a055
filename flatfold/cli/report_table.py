"""A report as tables for a terminal, with a bar for each time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from flatfold.benchmark.report import FLATFOLD, TRAINING
from flatfold.benchmark.views import sentences
from flatfold.text import clean, count, duration

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from flatfold.benchmark.baseline import Change
    from flatfold.benchmark.report import ModelReport, Pair, Report, Row
    from flatfold.timing import Estimate


WIDTH = 20
STYLES = {"faster": "green", "slower": "red"}
COLUMNS = ("", "latency [95 %]", "time beside training", "outputs", "runs in")
MORE = ("", "p90", "first call")  # where there is room; the first is the bar
ROOM = {150: 3, 120: 1}  # columns of a terminal: how many of them it has room for


def show(report: Report, console: Console) -> None:
    """Every model with its rows, flatfold beside each other row, and how it was measured."""
    for model in report.models:
        inputs = ", ".join(f"{clean(n)} {_sizes(shape)}" for n, shape in model.inputs.items())
        if model.reason:
            console.print(f"{clean(model.model)} was not measured: {clean(model.reason)}\n")
            continue
        console.print(f"{clean(model.model)} on {inputs}\n", style="bold")
        console.print(_table(model, console))
        console.print()
        for pair in sentences.beside_others(model):
            console.print(
                f"  {clean(_sentence(pair))}", style=STYLES.get(pair.verdict), soft_wrap=True
            )
        for note in _facts(model):
            console.print(clean(note), soft_wrap=True)
        console.print()
    facts = report.environment
    affinity = facts.get("affinity")
    cores = ",".join(map(str, affinity)) if isinstance(affinity, list) else "unknown"
    processor = facts.get("processor", "unknown processor")
    told = f"{processor}, {facts.get('threads', 'unknown')} threads on cores {cores}"
    console.print(clean(told), soft_wrap=True)


def show_changes(found: Sequence[Change], console: Console) -> None:
    """Each row beside what it was."""
    for change in found:
        told = _times(change.ratio) if change.ratio is not None else clean(change.reason)
        text = f"{clean(change.model)}, {change.row}: {change.verdict} than the baseline, {told}"
        if change.verdict in ("same", "inconclusive", "failed"):
            text = f"{clean(change.model)}, {change.row}: {change.verdict}, {told}"
        console.print(text, style="red" if change.failed else None, soft_wrap=True)


def _table(model: ModelReport, console: Console) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim")
    room = next((more for width, more in ROOM.items() if console.width >= width), 0)
    for title in (*COLUMNS, *MORE[:room]):
        table.add_column(title, overflow="fold")  # nothing is cut off where it is narrow
    longest = max((row.latency.value for row in model.rows if row.latency), default=1.0)
    fastest = next(iter(model.ranking()), None)
    for row in model.rows:
        more = [*_more_cells(row, longest, _block(console))]
        cells = map(clean, (*_cells(model, row), *more[:room]))  # a report may come from a file
        table.add_row(*cells, style="bold" if row is fastest else None)
    return table


def _cells(model: ModelReport, row: Row) -> Iterator[str]:
    yield row.name
    yield duration(row.latency.value, row.latency.interval) if row.latency else "not measured"
    yield "reference" if row.variant == TRAINING else _beside_training(model, row)
    yield _outputs(row)
    yield row.precision


def _more_cells(row: Row, longest: float, block: str) -> Iterator[str]:
    if row.latency is None:
        yield from ("", "")
    else:
        yield block * max(1, round(WIDTH * row.latency.value / longest))
        p90 = row.percentiles[90]
        yield "n too small" if p90 is None else duration(p90)
    yield duration(row.first_call_s[0]) if row.first_call_s else ""


def _beside_training(model: ModelReport, row: Row) -> str:
    pair = sentences.beside_training(model, row)
    if pair is None:
        return ""
    low, high = pair.ratio.interval
    return f"{pair.ratio.value:.3g}x [{low:.3g}, {high:.3g}] {pair.verdict}"


def _outputs(row: Row) -> str:
    checked = sentences.outputs(row)
    return f"{checked}, graph {row.proof}" if row.proof and not row.wrong else checked


def _sentence(pair: Pair) -> str:
    if pair.verdict in ("same", "inconclusive"):
        return f"{pair.row} and {pair.against}: {pair.verdict}, {_times(pair.ratio)}"
    return f"{pair.row} is {pair.verdict} than {pair.against}, {_times(pair.ratio)}"


def _facts(model: ModelReport) -> Iterator[str]:
    for row in model.rows:
        if row.wrong:
            yield f"{row.name} is WRONG: {clean(str(row.equivalence))}"
        if row.reason:
            yield f"{row.name} was not measured to the end: {clean(row.reason)}"
    before = model.row(model.reference)
    for row in model.rows:
        if before is None or row.variant != FLATFOLD or row.nodes is None:
            continue
        yield (
            f"{row.name}: {before.nodes} nodes became {row.nodes}, "
            f"{count(before.macs)} multiply-accumulates {count(row.macs)}"
        )
    for step in model.steps:
        if step.rewrite:
            beside = f"{_times(step.ratio)}, {step.verdict}" if step.ratio else "not timed"
            yield (
                f"{step.target}, {step.rewrite} added: {step.nodes} nodes, "
                f"{count(step.macs)} multiply-accumulates, {beside}"
            )
    for row in model.rows:
        if row.variant == FLATFOLD and row.floor_s is not None and row.latency is not None:
            reached = row.floor_s / row.latency.value
            yield f"{row.name} works at {reached:.0%} of what this machine can do at best"
    if model.noise is not None:
        yield (
            f"noise floor (the training graph beside itself): {_times(model.noise)}; "
            f"{model.rounds} rounds of fresh processes"
        )
    yield from (f"note: {note}" for note in model.notes)


def _times(ratio: Estimate) -> str:
    """A ratio of times: "0.76x the time [0.75, 0.77]"."""
    low, high = ratio.interval
    return f"{ratio.value:.3g}x the time [{low:.3g}, {high:.3g}]"


def _sizes(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def _block(console: Console) -> str:
    return "█" if console.is_terminal and console.encoding.startswith("utf") else "#"
