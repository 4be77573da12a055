"""A report in words, the same in a page, in Markdown and on a terminal.

A speed is written as "1.25x faster", together with the time ratio, 0.800x. If the difference is
too small or uncertain, the text is "as fast" or "inconclusive" instead.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import median

from flatfold import text
from flatfold.benchmark.report import (
    FLATFOLD,
    TRAINING,
    GraphChange,
    ModelReport,
    Pair,
    Report,
    Row,
)
from flatfold.text import duration
from flatfold.timing import FASTER, INCONCLUSIVE, SAME, SLOWER, Estimate


@dataclass(frozen=True)
class Headline:
    """A complete sentence about flatfold's speed on one target, compared with the training graph.

    `verdict` is that of the comparison, "WRONG", "failed" where there is no time, or "" where there
    is nothing to compare with. `more` compares with the fastest of the other rows.
    """

    target: str
    row: Row
    verdict: str
    sentence: str
    pair: Pair | None = None
    best: Pair | None = None
    more: str = ""


def headlines(model: ModelReport) -> list[Headline]:
    """A headline for each target on which flatfold was measured."""
    return [_headline(model, row) for row in model.rows if row.variant == FLATFOLD]


def _headline(model: ModelReport, row: Row) -> Headline:
    target = row.target
    if row.wrong:
        sentence = (
            f"flatfold on {target} is WRONG: its outputs are not those of the training graph."
        )
        return Headline(target, row, "WRONG", sentence)
    if row.reason or row.latency is None:
        why = row.reason or "fewer than three processes ran"
        return Headline(target, row, "failed", f"flatfold on {target} was not measured: {why}.")
    setting = f"{row.precision or 'unknown precision'}, batch {batch(model)}"
    if not row.ranked:
        sentence = (
            f"flatfold on {target}, {setting}, is not compared: its outputs were not checked."
        )
        return Headline(target, row, "not checked", sentence)
    pair, best = training_pair(model, row), best_other(model, row)
    more = _compared_with_best(model, best) if best else ""
    if pair is None:
        time = duration(row.latency.value, row.latency.interval)
        sentence = f"flatfold takes {time} on {target}, {setting}, {correctness(row)}; "
        sentence += "no training graph was measured to compare it with."
        return Headline(target, row, "", sentence, None, best, more)
    claim = _claim(pair, _title(model, pair, row))
    sentence = f"{claim}, {setting}: {_evidence(pair.ratio)}, "
    sentence += f"noise floor {noise(model)}, {correctness(row)}."
    return Headline(target, row, pair.verdict, sentence, pair, best, more)


def _title(model: ModelReport, pair: Pair, row: Row) -> str:
    """The training graph in words, with its target and precision where they are not the row's."""
    base = model.row(pair.against)
    if base is None or base.target != row.target:
        return f"{pair.against}, with flatfold on {row.target}"
    other = f" in {base.precision}" if base.precision != row.precision else ""
    return f"the training graph{other} on {row.target}"


def _claim(pair: Pair, base: str) -> str:
    """The first part of a headline: the speed, as far as the verdict supports it."""
    if pair.verdict == INCONCLUSIVE:
        return f"Whether flatfold is faster than {base} is inconclusive"
    if pair.verdict == SAME:
        return f"flatfold is as fast as {base}"
    return f"flatfold is {speed(pair.ratio, pair.verdict)} than {base}"


def _compared_with_best(model: ModelReport, best: Pair) -> str:
    other = model.row(best.against)
    precision = f", {other.precision}" if other is not None and other.precision else ""
    name = f"{best.against}{precision}, the fastest of the others"
    claim = f"it is {speed(best.ratio, best.verdict)}"
    if best.verdict == INCONCLUSIVE:
        claim = "the verdict is inconclusive"
    return f"Compared with {name}, {claim}: {_evidence(best.ratio)}."


def _evidence(ratio: Estimate) -> str:
    return f"{times(ratio)} the time, 95 % interval {between(ratio)}"


def speed(ratio: Estimate, verdict: str) -> str:
    """The speed in words: "1.25x faster", "1.25x slower", "as fast" or "inconclusive"."""
    if verdict == SAME:
        return "as fast"
    return text.speed(ratio.value) if verdict in (FASTER, SLOWER) else verdict


def comparison(pair: Pair) -> str:
    """A pair as a sentence without a full stop, for a list."""
    evidence = f"{times(pair.ratio)} the time [{between(pair.ratio)}]"
    if pair.verdict == INCONCLUSIVE:
        return f"{pair.row} and {pair.against}: inconclusive, {evidence}"
    than = "as" if pair.verdict == SAME else "than"
    return f"{pair.row} is {speed(pair.ratio, pair.verdict)} {than} {pair.against}, {evidence}"


def training_pair(model: ModelReport, row: Row) -> Pair | None:
    """The pair that compares a row with the training graph."""
    pairs = (p for p in model.pairs if p.row == row.name and p.against.startswith(f"{TRAINING} "))
    return next(pairs, None)


def best_other(model: ModelReport, row: Row) -> Pair | None:
    """The pair of `row` and the fastest correct row of another tool, or of PyTorch."""
    others = (r for r in model.ranking() if r.variant not in (FLATFOLD, TRAINING))
    return next((pair for r in others if (pair := model.pair(row.name, r.name))), None)


def standing(row: Row) -> str:
    """The text in the speed column of a row without a time ratio; "" if it has one."""
    if row.wrong:
        return "WRONG"
    if row.reason or row.latency is None:
        return "failed"
    if row.variant == TRAINING:
        return "reference"
    if row.rounded is not None:
        return "not ranked"
    return "" if row.ranked else "not compared"


def other_precisions(model: ModelReport) -> list[str]:
    """A sentence without a full stop for each row in another precision: its time beside that of
    flatfold in float32, which computes something else, and what the roundings change."""
    lines = []
    for row in model.rows:
        if row.rounded is None:
            continue
        pair = next((p for p in model.pairs if p.row == row.name), None)
        time = "" if pair is None else f"{_evidence(pair.ratio)} of {pair.against}; "
        lines.append(f"{row.name}: {time}{row.rounded}")
    return lines


def pairs_with_others(model: ModelReport) -> list[Pair]:
    """The pairs of flatfold and each row of another tool, or of PyTorch."""
    names = {r.name: r.variant for r in model.rows}
    return [
        pair
        for pair in model.pairs
        if names.get(pair.row) == FLATFOLD and names.get(pair.against) not in (FLATFOLD, TRAINING)
    ]


def fastest(model: ModelReport) -> set[str]:
    """The names of the rows with verdict faster against every other row of their target."""
    first = {row.target: row for row in reversed(model.ranking())}
    return {row.name for row in first.values() if _is_ahead(model, row)}


def _is_ahead(model: ModelReport, row: Row) -> bool:
    here = {r.name for r in model.rows if r.target == row.target}
    words = [p.verdict == FASTER for p in model.pairs if p.row == row.name and p.against in here]
    words += [p.verdict == SLOWER for p in model.pairs if p.against == row.name and p.row in here]
    return bool(words) and all(words)


def ordered(model: ModelReport) -> list[Row]:
    """Target by target: the fastest row first, then rows not ranked, then rows without a time."""
    targets = {row.target: at for at, row in enumerate(reversed(model.rows))}

    def key(row: Row) -> tuple[int, bool, bool, float]:
        seconds = model.seconds(row)
        return -targets[row.target], not row.ranked, seconds is None, seconds or 0.0

    return sorted(model.rows, key=key)


def targets(model: ModelReport) -> list[str]:
    return list(dict.fromkeys(row.target for row in model.rows))


def changes(model: ModelReport) -> list[tuple[str, GraphChange]]:
    """Each different change of the graph, with the names of its targets: "ort-cpu and openvino"."""
    distinct: list[GraphChange] = []
    names: list[list[str]] = []
    for one in model.changes:
        alike = [replace(other, target=one.target) == one for other in distinct]
        if any(alike):
            names[alike.index(True)].append(one.target)
        else:
            distinct.append(one)
            names.append([one.target])
    return [(" and ".join(each), one) for each, one in zip(names, distinct, strict=True)]


def is_timed(model: ModelReport) -> bool:
    return any(row.ranked for row in model.rows)


def has_limits(report: Report, model: ModelReport) -> bool:
    """Whether the model has a roofline."""
    known = {limit.target for limit in report.limits if limit.flops > 0 and limit.bytes > 0}
    return any(r.ranked and r.macs and r.bytes and r.target in known for r in model.rows)


def contents(report: Report, model: ModelReport) -> Iterator[tuple[str, str]]:
    """(anchor, title) of each section of a model that is not empty."""
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
    """A time ratio: "0.800x"."""
    return f"{text.digits(ratio.value)}x"


def between(ratio: Estimate) -> str:
    low, high = ratio.interval
    return f"{text.digits(low)}–{text.digits(high)}"


def time_ratio(ratio: Estimate) -> str:
    """A time ratio with its interval, for a table: "0.800x [0.790–0.810]"."""
    return f"{times(ratio)} [{between(ratio)}]"


def noise(model: ModelReport) -> str:
    return "not measured" if model.noise is None else f"±{percent(model.noise.deviation)}"


def percent(share: float) -> str:
    """Two digits: 0.0042 -> "0.42 %"."""
    return f"{100 * share:.2g} %" if share < 0.995 else f"{100 * share:.0f} %"


def middle(numbers: Sequence[float]) -> float | None:
    return median(numbers) if numbers else None


def outputs(row: Row) -> str:
    """The verdict on the outputs of the engine."""
    if row.wrong:
        return "WRONG"
    return "not checked" if row.equivalence is None else row.equivalence.verdict


def correctness(row: Row) -> str:
    """Both verdicts in words."""
    checked = f"outputs {outputs(row)}"
    return f"{checked}, graph {row.proof}" if row.proof else checked


def error(row: Row) -> str:
    """The largest error and the limit, relative to the range of the outputs."""
    checked = row.equivalence
    if checked is None or not checked.inputs:
        return ""
    return f"{checked.error:.1e} of {checked.bound:.1e}"
