"""What a report says, in words: the same for a page, for Markdown and for whoever reads both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import median

from flatfold.benchmark.report import (
    FLATFOLD,
    TRAINING,
    GraphChange,
    ModelReport,
    Pair,
    Report,
    Row,
)
from flatfold.text import digits, duration
from flatfold.timing import FASTER, INCONCLUSIVE, SAME, SLOWER, Estimate


@dataclass(frozen=True)
class Headline:
    """flatfold on one target beside the training graph, in a sentence that can stand alone.

    `verdict` is that of the comparison, "WRONG", "failed" where there is no time, or "" where there
    is nothing to compare with. `more` is the sentence about the fastest of the others.
    """

    target: str
    row: Row
    verdict: str
    sentence: str
    pair: Pair | None = None
    best: Pair | None = None
    more: str = ""


def headlines(model: ModelReport) -> list[Headline]:
    """One for each target that flatfold has a row on."""
    return [_headline(model, row) for row in model.rows if row.variant == FLATFOLD]


def _headline(model: ModelReport, row: Row) -> Headline:
    target = row.target
    if row.wrong:
        told = f"flatfold on {target} is WRONG: its outputs are not those of the training graph."
        return Headline(target, row, "WRONG", told)
    if row.reason or row.latency is None:
        why = row.reason or "fewer than three processes ran"
        return Headline(target, row, "failed", f"flatfold on {target} was not measured: {why}.")
    terms = f"{row.precision or 'unknown precision'}, batch {batch(model)}"
    if not row.ranked:
        told = f"flatfold on {target}, {terms}, is not compared: its outputs were not checked."
        return Headline(target, row, "not checked", told)
    pair, best = beside_training(model, row), best_other(model, row)
    more = _beside_best(model, best) if best else ""
    if pair is None:
        told = f"flatfold takes {duration(row.latency.value, row.latency.interval)} on {target}, "
        told += f"{terms}, {worth(row)}; no training graph was measured to compare it with."
        return Headline(target, row, "", told, None, best, more)
    told = (
        f"{_claim(pair, _title(model, pair, row), terms)}, 95 % interval {between(pair.ratio)}, "
        f"noise floor {noise(model)}, {worth(row)}."
    )
    return Headline(target, row, pair.verdict, told, pair, best, more)


def _title(model: ModelReport, pair: Pair, row: Row) -> str:
    """The training graph, and where it ran if that was elsewhere or in another precision."""
    base = model.row(pair.against)
    if base is None or base.target != row.target:
        return f"{pair.against}, itself on {row.target}"
    other = f" in {base.precision}" if base.precision != row.precision else ""
    return f"the training graph{other} on {row.target}"


def _claim(pair: Pair, base: str, terms: str) -> str:
    """No more than the verdict allows."""
    if pair.verdict == INCONCLUSIVE:
        told = f"Whether flatfold is faster than {base}, {terms}, is inconclusive"
    elif pair.verdict == SAME:
        told = f"flatfold is as fast as {base}, {terms}"
    else:
        return f"flatfold takes {times(pair.ratio)} the time of {base}, {terms}"
    return f"{told}: {times(pair.ratio)} the time"


def _beside_best(model: ModelReport, best: Pair) -> str:
    other = model.row(best.against)
    precision = f", {other.precision}" if other is not None and other.precision else ""
    return (
        f"Beside {best.against}{precision}, the fastest of the others: {times(best.ratio)} the "
        f"time, 95 % interval {between(best.ratio)}, {best.verdict}."
    )


def beside_training(model: ModelReport, row: Row) -> Pair | None:
    found = (p for p in model.pairs if p.row == row.name and p.against.startswith(f"{TRAINING} "))
    return next(found, None)


def best_other(model: ModelReport, row: Row) -> Pair | None:
    """Beside the fastest right row that is neither flatfold's nor the training graph."""
    others = (r for r in model.ranking() if r.variant not in (FLATFOLD, TRAINING))
    return next((pair for r in others if (pair := model.pair(row.name, r.name))), None)


def standing(row: Row) -> str:
    """A word for a row that is beside no training graph."""
    if row.wrong:
        return "WRONG"
    if row.reason or row.latency is None:
        return "failed"
    if row.variant == TRAINING:
        return "reference"
    return "" if row.ranked else "not compared"


def beside_others(model: ModelReport) -> list[Pair]:
    """flatfold beside each row that is neither its own nor the training graph's."""
    names = {r.name: r.variant for r in model.rows}
    return [
        pair
        for pair in model.pairs
        if names.get(pair.row) == FLATFOLD and names.get(pair.against) not in (FLATFOLD, TRAINING)
    ]


def fastest(model: ModelReport) -> set[str]:
    """The name of the row of each target that was decided to be faster than its others."""
    first = {row.target: row for row in reversed(model.ranking())}
    return {row.name for row in first.values() if _is_ahead(model, row)}


def _is_ahead(model: ModelReport, row: Row) -> bool:
    here = {r.name for r in model.rows if r.target == row.target}
    words = [p.verdict == FASTER for p in model.pairs if p.row == row.name and p.against in here]
    words += [p.verdict == SLOWER for p in model.pairs if p.against == row.name and p.row in here]
    return bool(words) and all(words)


def ordered(model: ModelReport) -> list[Row]:
    """Target by target: the fastest first, then what is not ranked, then what has no time."""
    targets = {row.target: at for at, row in enumerate(reversed(model.rows))}

    def key(row: Row) -> tuple[int, bool, bool, float]:
        seconds = model.seconds(row)
        return -targets[row.target], not row.ranked, seconds is None, seconds or 0.0

    return sorted(model.rows, key=key)


def targets(model: ModelReport) -> list[str]:
    return list(dict.fromkeys(row.target for row in model.rows))


def changes(model: ModelReport) -> list[tuple[str, GraphChange]]:
    """Each change of the graph, and the names of all targets that it is the same for."""
    found: list[GraphChange] = []
    names: list[list[str]] = []
    for one in model.changes:
        alike = [replace(other, target=one.target) == one for other in found]
        if any(alike):
            names[alike.index(True)].append(one.target)
        else:
            found.append(one)
            names.append([one.target])
    return [(" and ".join(each), one) for each, one in zip(names, found, strict=True)]


def is_timed(model: ModelReport) -> bool:
    return any(row.ranked for row in model.rows)


def has_limits(report: Report, model: ModelReport) -> bool:
    """Whether there is a row to show beside a limit."""
    known = {limit.target for limit in report.limits if limit.flops > 0 and limit.bytes > 0}
    return any(r.ranked and r.macs and r.bytes and r.target in known for r in model.rows)


def contents(report: Report, model: ModelReport) -> Iterator[tuple[str, str]]:
    """The sections of a model that are not empty: their names in links, and their titles."""
    yield "rows", "Every row"
    if is_timed(model):
        yield "times", "How sure the times are"
    if model.steps:
        yield "steps", "Each rewrite"
    if model.profiles or model.moves:
        yield "layers", "Where the time goes"
    if has_limits(report, model):
        yield "limits", "The machine's limit"
    if model.changes:
        yield "graph", "Before and after"
    yield "trust", "Is it fair?"


def batch(model: ModelReport) -> str:
    sizes = dict.fromkeys(str(shape[0]) for shape in model.inputs.values() if shape)
    return "/".join(sizes) or "unknown"


def shape(sizes: Sequence[int]) -> str:
    return " × ".join(map(str, sizes)) or "a single number"


def times(ratio: Estimate) -> str:
    return f"{digits(ratio.value)}×"


def between(ratio: Estimate) -> str:
    low, high = ratio.interval
    return f"{digits(low)}–{digits(high)}"


def noise(model: ModelReport) -> str:
    return "not measured" if model.noise is None else f"±{percent(model.noise.deviation)}"


def percent(share: float) -> str:
    """Two digits: 0.0042 -> "0.42 %"."""
    return f"{100 * share:.2g} %" if share < 0.995 else f"{100 * share:.0f} %"


def middle(numbers: Sequence[float]) -> float | None:
    return median(numbers) if numbers else None


def outputs(row: Row) -> str:
    """Whether the engine computes what the training graph does."""
    if row.wrong:
        return "WRONG"
    return "not checked" if row.equivalence is None else row.equivalence.verdict


def worth(row: Row) -> str:
    told = f"outputs {outputs(row)}"
    return f"{told}, graph {row.proof}" if row.proof else told


def error(row: Row) -> str:
    """The worst error and what was allowed, as shares of the range of the outputs."""
    found = row.equivalence
    if found is None or not found.inputs:
        return ""
    return f"{found.error:.1e} of {found.bound:.1e}"
