"""Reports as Markdown, short enough for a repository: a table and some lines for each model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from flatfold.benchmark.report import FLATFOLD, ModelReport, Pair, Report, Row
from flatfold.benchmark.views import facts, sentences
from flatfold.text import count, duration, one_line
from flatfold.timing import Estimate

HEAD = (
    *("variant", "target", "precision", "latency [95 %]", "p90", "speed", "time ratio [95 %]"),
    *("outputs", "graph", "nodes", "parameters", "MACs", "first call"),
)
SUMMARY = (
    *("model", "target", "training graph", "flatfold", "speed", "time ratio"),
    *("fastest other", "speed to it", "time ratio to it"),
)
RIGHT = frozenset({"latency [95 %]", "p90", *SUMMARY[2:6], *SUMMARY[7:], HEAD[6], *HEAD[-4:]})
PLACES = 3
_MARKS = re.compile(r"([\\`*|\[\]#~!])")


def markdown(reports: Sequence[Report]) -> str:
    """One report after the other, with the machine that each was measured on."""
    parts = ["# Latency comparison"]
    if sum(len(report.models) for report in reports) > 1:
        parts.append(table(SUMMARY, (row for report in reports for row in _summary(report))))
    for _, alike in groupby(reports, _setting):
        together = list(alike)
        parts += [text for report in together for m in report.models for text in _model(m)]
        parts += _machine(together)
    return "\n\n".join(parts) + "\n"


def _summary(report: Report) -> Iterator[list[str]]:
    """A line for each model and target."""
    for model in report.models:
        for headline in sentences.headlines(model):
            base = model.row(headline.pair.against) if headline.pair else None
            yield [
                escape(model.model),
                escape(headline.target),
                duration(base.latency.value) if base and base.latency else "",
                duration(headline.row.latency.value) if headline.row.latency else "",
                _speed(headline.pair) if headline.pair else escape(headline.verdict),
                sentences.time_ratio(headline.pair.ratio) if headline.pair else "",
                escape(headline.best.against) if headline.best else "",
                _speed(headline.best) if headline.best else "",
                sentences.time_ratio(headline.best.ratio) if headline.best else "",
            ]


def _model(model: ModelReport) -> Iterator[str]:
    yield f"## {escape(model.model)}"
    if model.reason:
        yield f"It was not measured: {escape(model.reason)}"
        return
    for headline in sentences.headlines(model):
        yield escape(f"{headline.sentence} {headline.more}".strip())
    yield table(HEAD, (_cells(model, row) for row in sentences.ordered(model)))
    inputs = ", ".join(f"{name} {sentences.shape(sizes)}" for name, sizes in model.inputs.items())
    yield escape(
        f"Inputs: {inputs}. Noise floor {sentences.noise(model)}, {model.rounds} rounds of fresh "
        f"processes{'' if model.decided else ', not every pair decided'}."
    )
    lines = [*_others(model), *_steps(model), *_decisions(model), *_failures(model), *model.notes]
    if lines:
        yield "\n".join(f"- {escape(line)}" for line in lines)


def _cells(model: ModelReport, row: Row) -> Iterator[str]:
    pair, p90 = sentences.training_pair(model, row), row.percentiles[90]
    first = sentences.middle(row.first_call_s)
    yield f"**{FLATFOLD}**" if row.variant == FLATFOLD else escape(row.variant)
    yield escape(row.target)
    yield escape(row.precision)
    yield duration(row.latency.value, row.latency.interval) if row.latency else "not measured"
    yield duration(p90) if p90 is not None else ("n too small" if row.samples_s else "")
    yield escape(sentences.standing(row)) or (_speed(pair) if pair else "")
    yield sentences.time_ratio(pair.ratio) if pair else ""
    error = sentences.error(row)
    yield escape(f"{sentences.outputs(row)}, {error} allowed" if error else sentences.outputs(row))
    yield escape(row.proof)
    yield "" if row.nodes is None else str(row.nodes)
    yield "" if row.parameters is None else count(row.parameters)
    yield "" if row.macs is None else count(row.macs)
    yield "" if first is None else duration(first)


def _others(model: ModelReport) -> Iterator[str]:
    yield from map(sentences.comparison, sentences.pairs_with_others(model))
    yield from sentences.other_precisions(model)


def _steps(model: ModelReport) -> Iterator[str]:
    for target in dict.fromkeys(step.target for step in model.steps):
        steps = [
            f"{step.rewrite} ({step.applied}) "
            + (_step_speed(step.ratio, step.verdict) if step.ratio else "not timed")
            for step in model.steps
            if step.target == target and step.rewrite and step.applied
        ]
        if steps:
            effects = "; ".join(steps)
            yield f"rewrites added one by one on {target}, speed to the step before: {effects}"


def _decisions(model: ModelReport) -> Iterator[str]:
    for targets, changes in sentences.changes(model):
        places: dict[tuple[bool, str], list[str]] = {}
        for decision in changes.decisions:
            suffix = "" if decision.applied else f" ({decision.code})"
            name = f"{decision.rewrite}{suffix}"
            places.setdefault((decision.applied, name), []).extend(decision.places)
        for applied, word in ((True, "applied"), (False, "declined")):
            texts = [f"{n} at {_places(p)}" for (kind, n), p in places.items() if kind == applied]
            if texts:
                yield f"{word} for {targets}: {'; '.join(texts)}"


def _places(places: Sequence[str]) -> str:
    if len(places) <= PLACES:
        return ", ".join(places) or "no place"
    return f"{len(places)} places"


def _failures(model: ModelReport) -> Iterator[str]:
    for row in model.rows:
        if row.wrong:
            yield f"{row.name} is WRONG and not ranked: {row.equivalence}"
        if row.reason:
            yield f"{row.name} was not measured to the end: {row.reason}"


def _setting(report: Report) -> list[str]:
    """Facts and versions; reports from one machine with the same options have the same ones."""
    known = [(name, value) for name, value in facts.facts(report) if value != facts.UNKNOWN]
    fixed = [f"{n} {v}" for n, v in known if n.partition(":")[0] not in ("date", "before", "after")]
    return [*fixed, *(f"{name} {version}" for name, version in facts.versions(report))]


def _machine(reports: Sequence[Report]) -> Iterator[str]:
    yield "## Measured on"
    dates = dict.fromkeys(filter(None, map(facts.date, reports)))
    yield f"{escape('; '.join((*_setting(reports[0]), *dates)))}."
    # Nothing is escaped inside a code fence, so a command must not contain the fence.
    commands = [one_line(facts.command(report)).replace("```", "") for report in reports]
    lines = [f"$ {command}" for command in commands if command]
    if lines:
        yield "\n".join(("```console", *lines, "```"))


def table(head: Sequence[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [head, ["--:" if name in RIGHT else "---" for name in head], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def escape(text: str) -> str:
    """`text` on one line, in which nothing is markup."""
    plain = one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _MARKS.sub(r"\\\1", plain)


def _speed(pair: Pair) -> str:
    return sentences.speed(pair.ratio, pair.verdict)


def _step_speed(ratio: Estimate, verdict: str) -> str:
    return f"{sentences.speed(ratio, verdict)}, {sentences.times(ratio)} the time"
