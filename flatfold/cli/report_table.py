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
    from flatfold.benchmark.report import ModelReport, Report, Row
    from flatfold.timing import Estimate


WIDTH = 20
STYLES = {"faster": "green", "slower": "red"}
COLUMNS = ("", "latency [95 %]", "speed, time ratio to training", "outputs", "runs in")
MORE = ("", "p90", "first call")  # on a wide terminal; the first is the bar
ROOM = {150: 3, 120: 1}  # width of the terminal: how many columns of MORE are shown


def show(report: Report, console: Console) -> None:
    """Prints each model with its rows, flatfold's pairs, and how it was measured."""
    for model in report.models:
        inputs = ", ".join(f"{clean(n)} {_sizes(shape)}" for n, shape in model.inputs.items())
        if model.reason:
            console.print(f"{clean(model.model)} was not measured: {clean(model.reason)}\n")
            continue
        console.print(f"{clean(model.model)} on {inputs}\n", style="bold")
        console.print(_table(model, console))
        console.print()
        for pair in sentences.pairs_with_others(model):
            line = f"  {clean(sentences.comparison(pair))}"
            console.print(line, style=STYLES.get(pair.verdict), soft_wrap=True)
        for line in sentences.other_precisions(model):
            console.print(f"  {clean(line)}", soft_wrap=True)
        for note in _facts(model):
            console.print(clean(note), soft_wrap=True)
        console.print()
    facts = report.environment
    affinity = facts.get("affinity")
    cores = ",".join(map(str, affinity)) if isinstance(affinity, list) else "unknown"
    processor = facts.get("processor", "unknown processor")
    machine = f"{processor}, {facts.get('threads', 'unknown')} threads on cores {cores}"
    console.print(clean(machine), soft_wrap=True)


def show_changes(changed: Sequence[Change], console: Console) -> None:
    """Prints each row compared with the baseline."""
    for change in changed:
        console.print(_change(change), style="red" if change.failed else None, soft_wrap=True)


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
    yield "reference" if row.variant == TRAINING else _compared_with_training(model, row)
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


def _compared_with_training(model: ModelReport, row: Row) -> str:
    pair = sentences.training_pair(model, row)
    if pair is None:
        return ""
    return f"{sentences.speed(pair.ratio, pair.verdict)}, {sentences.time_ratio(pair.ratio)}"


def _change(change: Change) -> str:
    row = f"{clean(change.model)}, {change.row}"
    if change.ratio is None:
        return f"{row}: {change.verdict}, {clean(change.reason)}"
    speed = sentences.speed(change.ratio, change.verdict)
    words = {"same": f"{speed} as the baseline", "inconclusive": speed}
    claim = words.get(change.verdict, f"{speed} than the baseline")
    return f"{row}: {claim}, {_times(change.ratio)}"


def _outputs(row: Row) -> str:
    checked = sentences.outputs(row)
    return f"{checked}, graph {row.proof}" if row.proof and not row.wrong else checked


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
            effect = _evidence(step.ratio, step.verdict) if step.ratio else "not timed"
            yield (
                f"{step.target}, {step.rewrite} added: {step.nodes} nodes, "
                f"{count(step.macs)} multiply-accumulates, {effect}"
            )
    for row in model.rows:
        if row.variant == FLATFOLD and row.floor_s is not None and row.latency is not None:
            reached = row.floor_s / row.latency.value
            yield f"{row.name} works at {reached:.0%} of what this machine can do at best"
    if model.noise is not None:
        yield (
            f"noise floor (the training graph compared with itself): {_times(model.noise)}; "
            f"{model.rounds} rounds of fresh processes"
        )
    yield from (f"note: {note}" for note in model.notes)


def _evidence(ratio: Estimate, verdict: str) -> str:
    return f"{sentences.speed(ratio, verdict)}, {_times(ratio)}"


def _times(ratio: Estimate) -> str:
    """A ratio of times: "0.760x the time [0.750–0.770]"."""
    return f"{sentences.times(ratio)} the time [{sentences.between(ratio)}]"


def _sizes(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def _block(console: Console) -> str:
    return "█" if console.is_terminal and console.encoding.startswith("utf") else "#"
