"""One model: its variants made, checked against the training graph, measured, and compared."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flatfold.comparing import arrays, paired
from flatfold.comparing.checking import Checks
from flatfold.comparing.data import FLATFOLD, TRAINING, ModelReport, Pair, Row
from flatfold.comparing.measuring import Plan, Record, Runner, measure
from flatfold.comparing.paired import Estimate
from flatfold.comparing.process import TIME_LIMIT, Process
from flatfold.comparing.variants import TORCH, Kitchen, Variant
from flatfold.errors import InputError

if TYPE_CHECKING:
    from flatfold.frontend.source import Source

AGAIN = " again"
FEW = 5  # rounds, below which a report says that there were few
DRIFT = 0.05

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Terms:
    """What is the same for all variants: options by target, threads, cores, sizes, and the plan."""

    options: Mapping[str, Mapping[str, object]]
    threads: int
    affinity: Sequence[int]
    plan: Plan
    verify: str = "certify"
    batch: int | None = None
    image: tuple[int, ...] | None = None
    time_limit: float = TIME_LIMIT


def contest(
    source: Source, against: Sequence[str], terms: Terms, progress: Progress
) -> ModelReport:
    """The report on one model. A variant that fails is a row with its reason.

    Raises InputError where a size is missing, or where no variant can be measured.
    """
    with tempfile.TemporaryDirectory(prefix="flatfold-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        shapes = _store_feeds(source, terms, folder / "feeds.npz")
        common = {
            "threads": terms.threads,
            "affinity": list(terms.affinity),
            "feeds": str(folder / "feeds.npz"),
        }
        kitchen = Kitchen(source, common, terms.options, folder, progress)
        variants = kitchen.variants(against, terms.verify)
        checks = Checks(source, {v.row.name: v for v in variants}, progress)
        rows = {v.row.name: v.row for v in variants}
        reference = variants[0].row.name

        def decided(records: Mapping[str, Record]) -> bool:
            judged = _judged(rows, records, checks)
            pairs = pairs_of(judged, _noise(records, reference), terms.plan)
            return paired.INCONCLUSIVE not in [pair.verdict for pair in pairs]

        measured = measure(
            _launchers(variants, folder, terms.time_limit),
            decided,
            terms.plan,
            inspect=checks.inspect,
            progress=progress,
        )
    judged = _judged(rows, measured.records, checks)
    noise = _noise(measured.records, reference)
    report = ModelReport(
        source.name,
        shapes,
        reference,
        tuple(judged.values()),
        tuple(pairs_of(judged, noise, terms.plan)),
        noise,
        measured.rounds,
        measured.decided,
    )
    return replace(report, notes=tuple(notes(report, terms.plan)))


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
    if report.rounds < FEW:
        found.append(f"{report.rounds} rounds are few: {FEW} are the fewest to be believed")
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


def _judged(
    rows: Mapping[str, Row], records: Mapping[str, Record], checks: Checks
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
            equivalence=checks.found.get(name),
            samples_s=tuple(tuple(map(tuple, process)) for process in record.samples if process),
            build_s=tuple(started.build_s for started in record.started),
            first_call_s=tuple(started.first_call_s for started in record.started),
            steady=record.steady,
            reason=record.reason,
        )
    return found


def _noise(records: Mapping[str, Record], reference: str) -> Estimate | None:
    """The A/A pair: the reference beside itself in another process."""
    one, other = records.get(reference), records.get(reference + AGAIN)
    if one is None or other is None:
        return None
    return paired.ratio(one.samples, other.samples)


def _launchers(
    variants: Sequence[Variant], folder: Path, time_limit: float
) -> dict[str, Callable[[], Runner]]:
    able = {v.row.name: v.job for v in variants if not v.row.reason}
    if not able:
        raise InputError(
            "no variant can be measured", where="; ".join(v.row.reason for v in variants)
        )
    reference = variants[0].row.name
    if reference in able:
        able[reference + AGAIN] = able[reference]
    return {name: _launcher(job, folder, time_limit) for name, job in able.items()}


def _launcher(job: Mapping[str, Any], folder: Path, limit: float) -> Callable[[], Runner]:
    return lambda: Process(job, folder, limit)


def _store_feeds(source: Source, terms: Terms, path: Path) -> dict[str, tuple[int, ...]]:
    """Writes the inputs that all variants are given, and says how large they are."""
    from flatfold.backends.feeds import specs_of
    from flatfold.backends.sizes import check_sizes, drawn, shapes_of

    specs = specs_of(v for v in source.model.graph.inputs if not v.is_initializer())
    check_sizes(specs, terms.batch, terms.image)
    shapes = shapes_of(specs, terms.batch, terms.image)
    arrays.store(path, drawn(specs, shapes))
    return shapes
