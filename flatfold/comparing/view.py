"""What a report says, in words: the same for a page, for Markdown and for whoever reads both."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from flatfold.comparing.data import FLATFOLD, TRAINING, ModelReport, Pair, Report, Row
from flatfold.comparing.paired import INCONCLUSIVE, SAME, Estimate
from flatfold.units import digits, duration

LOADED = 0.2  # cores kept busy by others, above which times are not to be believed
FEW = 5  # rounds
APART = ("versions", "command")  # facts of the environment that are shown in their own way


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
        f"flatfold takes {times(pair.ratio)} the time of {_title(model, pair, row)}, {terms}, "
        f"95 % interval {between(pair.ratio)}, noise floor {noise(model)}, {worth(row)}"
        f"{_word(pair)}."
    )
    return Headline(target, row, pair.verdict, told, pair, best, more)


def _title(model: ModelReport, pair: Pair, row: Row) -> str:
    """The training graph, and where it ran if that was elsewhere or in another precision."""
    base = model.row(pair.against)
    if base is None or base.target != row.target:
        return f"{pair.against}, itself on {row.target}"
    other = f" in {base.precision}" if base.precision != row.precision else ""
    return f"the training graph{other} on {row.target}"


def _word(pair: Pair) -> str:
    return f": {pair.verdict}" if pair.verdict in (SAME, INCONCLUSIVE) else ""


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
    """The name of the fastest row of each target."""
    first = {row.target: row.name for row in reversed(model.ranking())}
    return set(first.values())


def ordered(model: ModelReport) -> list[Row]:
    """Target by target: the fastest first, then what is not ranked, then what has no time."""
    targets = {row.target: at for at, row in enumerate(reversed(model.rows))}

    def key(row: Row) -> tuple[int, bool, bool, float]:
        seconds = row.latency.value if row.latency else 0.0
        return -targets[row.target], not row.ranked, row.latency is None, seconds

    return sorted(model.rows, key=key)


def targets(model: ModelReport) -> list[str]:
    return list(dict.fromkeys(row.target for row in model.rows))


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


def date(report: Report) -> str:
    """2026-08-20T10:00:00+00:00 -> "2026-08-20 10:00 UTC"; else as it is."""
    told = str(report.environment.get("date") or "")
    return f"{told[:10]} {told[11:16]} UTC" if told.endswith("+00:00") else told


def machine(report: Report) -> str:
    told = report.environment
    parts = (told.get("processor") or "unknown processor", f"{told.get('threads', '?')} threads")
    return " · ".join(map(str, filter(None, (*parts, date(report)))))


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


@dataclass(frozen=True)
class Check:
    """Something that can make a comparison unfair: fine, not fine, or (None) not known."""

    fine: bool | None
    text: str


def checks(report: Report, model: ModelReport) -> Iterator[Check]:
    """What would make the comparison unfair, and whether it did."""
    told = report.environment
    alike = f"every row had the same inputs, {told.get('threads', 'as many')} threads and cores"
    yield Check(True, alike)
    kinds = sorted({row.precision for row in model.rows if row.precision})
    yield Check(len(kinds) < 2, f"precision of the rows: {', '.join(kinds) or 'unknown'}")
    doubtful = [row.name for row in model.rows if row.latency and not row.ranked]
    text = f"not shown to be right: {', '.join(doubtful)}" if doubtful else "every time is of a row"
    yield Check(not doubtful, text if doubtful else f"{text} that was shown to be right")
    few = model.rounds < FEW
    yield Check(not few, f"{model.rounds} rounds of fresh processes{', which is few' * few}")
    undecided = sum(pair.verdict == INCONCLUSIVE for pair in model.pairs)
    yield Check(not undecided, f"{undecided} of {len(model.pairs)} pairs are undecided")
    delta = report.options.get("delta", 0.02)
    yield Check(
        None if model.noise is None else model.noise.deviation <= delta,
        f"noise floor {noise(model)}; times within {percent(delta)} count as the same",
    )
    unsteady = [row.name for row in model.rows if not row.steady]
    yield Check(not unsteady, f"not steady when timed: {', '.join(unsteady) or 'none'}")
    yield from _machine_checks(told)


def _machine_checks(told: Mapping[str, Any]) -> Iterator[Check]:
    moments = [told.get(when) for when in ("before", "after")]
    states = [moment if isinstance(moment, Mapping) else {} for moment in moments]
    busy = [s["busy_cores"] for s in states if isinstance(s.get("busy_cores"), int | float)]
    kept = f"other work kept {max(busy):.1f} cores busy" if busy else "other work: not known"
    yield Check(max(busy) <= LOADED if busy else None, kept)
    hot = [s["throttled"] for s in states if isinstance(s.get("throttled"), int)]
    more = hot[-1] - hot[0] if len(hot) == len(states) else None
    text = "not known" if more is None else f"{more} times"
    yield Check(None if more is None else more <= 0, f"slowed down for its heat: {text}")
    governor = ", ".join(map(str, told.get("governor") or ()))
    yield Check(
        governor == "performance" if governor else None,
        f"governor of the clocks: {governor or 'not known'}",
    )


def facts(report: Report) -> list[tuple[str, str]]:
    """The environment and then the options, a line each."""
    told = {n: v for n, v in report.environment.items() if n not in APART}
    return [*_flat(told, ""), *_flat(report.options, "")]


def versions(report: Report) -> list[tuple[str, str]]:
    found = report.environment.get("versions")
    return [*_flat(found, "")] if isinstance(found, Mapping) else []


def _flat(content: Mapping[str, Any], before: str) -> Iterator[tuple[str, str]]:
    for name, value in content.items():
        title = f"{before}{name}".replace("_", " ")
        if isinstance(value, Mapping):
            yield from _flat(value, f"{title}: ")
        elif isinstance(value, list | tuple):
            yield title, ", ".join(map(str, value)) or "none"
        else:
            yield title, "unknown" if value is None else str(value)
