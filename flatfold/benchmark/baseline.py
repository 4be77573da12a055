"""A report beside an older one: what became slower, and by more than is allowed.

A row is judged by its time relative to that of the training graph in the same report, which was
measured block by block beside it: a machine that is slower as a whole is no regression. Where one
of the two reports has no training graph to judge by, the times themselves are compared.
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
    """A row of flatfold's in both reports: it takes `ratio` times as long as it did.

    `failed`: slower by more than was allowed, and surely slower; or right before and now not, for
    which there is a `reason` and no ratio.
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
    """How flatfold's rows of `old` fare in `new`; `allowed` is 0.05 for 5 %.

    Raises InputError where the two were not measured alike, or have no row in common.
    """
    for fact in SAME_MACHINE:
        before, after = old.environment.get(fact), new.environment.get(fact)
        if before != after:
            raise InputError(
                f"the baseline was measured with another {fact}: {before}, now {after}",
                hint="measure the baseline again here",
            )
    models = {model.model: model for model in new.models}
    found = []
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
        found += [_change(model, row, now, other, allowed) for row, other in both if other]
    if not found:
        raise InputError(
            "the baseline has no row of flatfold's in common with this report",
            hint="compare the same models on the same targets",
        )
    return found


def _change(old: ModelReport, before: Row, new: ModelReport, after: Row, allowed: float) -> Change:
    if not after.ranked:
        why = after.reason or ("it is wrong" if after.wrong else "it was not shown to be right")
        return Change(old.model, before.name, None, "failed", True, why)
    times = _beside_training(new, after), _beside_training(old, before)
    if times[0] is None or times[1] is None:
        times = after.latency, before.latency
    assert times[0] is not None and times[1] is not None  # both are ranked
    ratio = timing.quotient(times[0], times[1])
    word = timing.verdict(ratio, noise=0.0, delta=allowed)
    return Change(old.model, before.name, ratio, word, word == timing.SLOWER)


def _beside_training(report: ModelReport, row: Row) -> Estimate | None:
    """The time of a row relative to the training graph's on its target, if that can be compared."""
    base = report.row(f"{TRAINING} {row.target}")
    if base is None or not base.ranked:
        return None
    return timing.ratio(row.samples_s, base.samples_s)
