"""A report compared with an older one, the baseline: the rows that became slower.

A row is compared by its time relative to the training graph of the same report, measured in turns
with it: a machine that is slower as a whole is no regression. Where one of the two reports has no
training graph to compare with, the times themselves are compared.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from flatfold import timing
from flatfold.benchmark.report import FLATFOLD, TRAINING, ModelReport, Report, Row
from flatfold.errors import InputError
from flatfold.timing import Estimate

SAME_MACHINE = ("processor", "threads")


@dataclass(frozen=True)
class Change:
    """A row of flatfold in both reports: it takes `ratio` times the time of the baseline.

    `failed`: surely slower, by more than is allowed; or correct in the baseline and not any more,
    for which there is a `reason` and no ratio.
    """

    model: str
    row: str
    ratio: Estimate | None
    verdict: str
    failed: bool
    reason: str = ""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def changes(old: Report, new: Report, allowed: float) -> list[Change]:
    """The changes of flatfold's rows from `old` to `new`; `allowed` is 0.05 for 5 %.

    Raises InputError where the two were measured differently, or have no row in common.
    """
    for fact in SAME_MACHINE:
        before, after = old.environment.get(fact), new.environment.get(fact)
        if before != after:
            raise InputError(
                f"the baseline was measured with another {fact}: {before}, now {after}",
                hint="measure the baseline again here",
            )
    models = {model.model: model for model in new.models}
    changed = []
    for model in old.models:
        now = models.get(model.model)
        if now is None:
            continue
        if now.inputs != model.inputs:
            raise InputError(
                f"the baseline of {model.model} was measured on {model.inputs}, now {now.inputs}",
                hint="give the same batch and size",
            )
        rows = [row for row in model.rows if row.variant == FLATFOLD and row.ranked]
        both = [(row, now.row(row.name)) for row in rows]
        changed += [_change(model, row, now, other, allowed) for row, other in both if other]
    if not changed:
        raise InputError(
            "the baseline has no row of flatfold's in common with this report",
            hint="compare the same models on the same targets",
        )
    return changed


def _change(old: ModelReport, before: Row, new: ModelReport, after: Row, allowed: float) -> Change:
    if not after.ranked:
        why = after.reason or ("it is wrong" if after.wrong else "it was not shown to be right")
        return Change(old.model, before.name, None, "failed", True, why)
    times = _time_ratio(new, after), _time_ratio(old, before)
    if times[0] is None or times[1] is None:
        times = after.latency, before.latency
    assert times[0] is not None and times[1] is not None  # both are ranked
    ratio = timing.quotient(times[0], times[1])
    verdict = timing.verdict(ratio, noise=0.0, delta=allowed)
    return Change(old.model, before.name, ratio, verdict, verdict == timing.SLOWER)


def _time_ratio(report: ModelReport, row: Row) -> Estimate | None:
    """The time of a row relative to the training graph on its target, if it can be compared."""
    base = report.row(f"{TRAINING} {row.target}")
    if base is None or not base.ranked:
        return None
    return timing.ratio(row.samples_s, base.samples_s)
