"""What would make a comparison unfair, and whether it did."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from flatfold.comparing.data import ModelReport, Report
from flatfold.comparing.paired import INCONCLUSIVE
from flatfold.comparing.setting import threads
from flatfold.comparing.view import noise, percent

LOADED = 0.2  # cores kept busy by others, above which times are not to be believed
DELTA = 0.02  # within which times are the same, unless the report says otherwise


@dataclass(frozen=True)
class Check:
    """Something that can make a comparison unfair: fine, not fine, or (None) not known."""

    fine: bool | None
    text: str


def checks(report: Report, model: ModelReport) -> Iterator[Check]:
    """What would make the comparison unfair, and whether it did."""
    told = report.environment
    alike = f"every row had the same inputs, {threads(report)} and the same cores"
    yield Check(True, alike)
    kinds = sorted({row.precision for row in model.rows if row.precision})
    yield Check(len(kinds) < 2, f"precision of the rows: {', '.join(kinds) or 'unknown'}")
    doubtful = [row.name for row in model.rows if row.latency and not row.ranked]
    text = f"not shown to be right: {', '.join(doubtful)}" if doubtful else "every time is of a row"
    yield Check(not doubtful, text if doubtful else f"{text} that was shown to be right")
    undecided = sum(pair.verdict == INCONCLUSIVE for pair in model.pairs)
    yield Check(not undecided, f"{undecided} of {len(model.pairs)} pairs are undecided")
    told_delta = report.options.get("delta")
    delta = told_delta if isinstance(told_delta, int | float) else DELTA
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
    names = told.get("governor")
    governor = ", ".join(map(str, names)) if isinstance(names, list | tuple) else ""
    yield Check(
        governor == "performance" if governor else None,
        f"governor of the clocks: {governor or 'not known'}",
    )
