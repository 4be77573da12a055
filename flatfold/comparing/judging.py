"""What the samples say of the rows of one model: which is faster, and how far to believe it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from flatfold.comparing import paired
from flatfold.comparing.data import FLATFOLD, TORCH, TRAINING, ModelReport, Pair, Row
from flatfold.comparing.measuring import Plan, Record
from flatfold.comparing.paired import Estimate
from flatfold.proof.equivalence import Equivalence

AGAIN = " again"  # behind the name of the reference, which is measured twice
DRIFT = 0.05


def pairs_of(rows: Mapping[str, Row], noise: Estimate | None, plan: Plan) -> list[Pair]:
    """Each row beside the training graph, and flatfold beside each other row, on one target.

    A row that is wrong, or was not measured to the end, is in no pair.
    """
    reach = 0.0 if noise is None else noise.deviation
    found = []
    for row, other in _wanted([row for row in rows.values() if not row.wrong and not row.reason]):
        ratio = paired.ratio(row.samples_s, other.samples_s, seed=plan.seed)
        if ratio is not None:
            word = paired.verdict(ratio, noise=reach, delta=plan.delta)
            found.append(Pair(row.name, other.name, ratio, word))
    return found


def notes(report: ModelReport, plan: Plan) -> list[str]:
    """What a reader has to know before the times are believed."""
    found = []
    open_pairs = [pair for pair in report.pairs if pair.verdict == paired.INCONCLUSIVE]
    if open_pairs:
        found.append(
            f"{len(open_pairs)} of {len(report.pairs)} pairs are undecided after "
            f"{report.rounds} rounds: give it a larger budget or a quieter machine"
        )
    if report.noise is None:
        found.append("the noise floor could not be measured")
    elif report.noise.deviation > plan.delta:
        found.append(
            f"the same program differs from itself by up to {report.noise.deviation:.1%}, "
            f"more than the {plan.delta:.0%} below which times are called the same"
        )
    reference = report.row(report.reference)
    slower = paired.drift(reference.samples_s) if reference is not None else 0.0
    if abs(slower) > DRIFT:
        found.append(
            f"the machine drifted: the time of {report.reference} changed by {slower:+.1%} "
            "from the earlier rounds to the later ones"
        )
    unsteady = [row.name for row in report.rows if not row.steady]
    if unsteady:
        found.append(f"not steady after the warm-up: {', '.join(unsteady)}")
    precisions = {row.precision for row in report.rows if row.precision}
    if len(precisions) > 1:
        found.append(f"not all rows ran in one precision: {', '.join(sorted(precisions))}")
    return found


def _wanted(rows: Sequence[Row]) -> list[tuple[Row, Row]]:
    trained = {row.target: row for row in rows if row.variant == TRAINING}
    found = []
    for row in rows:
        base = trained.get(row.target) or next(iter(trained.values()), None)
        if base is not None and row.variant != TRAINING:
            found.append((row, base))
    for ours in (row for row in rows if row.variant == FLATFOLD):
        for row in rows:
            comparable = row.target in (ours.target, TORCH)
            if comparable and row.variant not in (FLATFOLD, TRAINING):
                found.append((ours, row))
    return found


def judged(
    rows: Mapping[str, Row],
    records: Mapping[str, Record],
    checked: Mapping[str, Equivalence],
) -> dict[str, Row]:
    """The rows with what was measured so far."""
    found = {}
    for name, row in rows.items():
        record = records.get(name)
        if record is None:
            found[name] = row
            continue
        last = record.started[-1] if record.started else None
        found[name] = replace(
            row,
            precision=last.precision if last else "",
            layers=last.layers if last else None,
            equivalence=checked.get(name),
            samples_s=tuple(tuple(map(tuple, process)) for process in record.samples),
            build_s=tuple(s.build_s for s in record.started if s.build_s is not None),
            first_call_s=tuple(started.first_call_s for started in record.started),
            steady=record.steady,
            reason=record.reason,
        )
    return found


def noise_of(records: Mapping[str, Record], reference: str) -> Estimate | None:
    """The A/A pair: the reference beside itself in another process."""
    one, other = records.get(reference), records.get(reference + AGAIN)
    if one is None or other is None:
        return None
    return paired.ratio(one.samples, other.samples)
