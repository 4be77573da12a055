"""Whether each variant computes what the training graph does: its own process is asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from flatfold import timing
from flatfold.benchmark.candidates.candidates import Variant
from flatfold.benchmark.measure.process import Process
from flatfold.benchmark.measure.protocol import Plan, Record
from flatfold.benchmark.report import FLATFOLD, TORCH, TRAINING, ModelReport, Pair, Row
from flatfold.errors import FlatfoldError, InputError
from flatfold.proof.equivalence import Equivalence
from flatfold.system.progress import Progress
from flatfold.timing import Estimate

if TYPE_CHECKING:
    from flatfold.benchmark.measure.protocol import Runner
    from flatfold.frontend import Source
    from flatfold.proof.equivalence import Equivalence
    from flatfold.proof.network.reference import Reference


BY_ONNX = "the ONNX reference in float64"


class Checks:
    """Compares outputs by the limits of `proof.engine_check`, against one float64 reference."""

    def __init__(self, source: Source, variants: Mapping[str, Variant], progress: Progress) -> None:
        self.source, self.variants, self.progress = source, variants, progress
        self.found: dict[str, Equivalence] = {}
        self._reference: tuple[Reference | None, str] | None = None
        self._original: Reference | None = None

    def inspect(self, name: str, runner: Runner) -> None:
        """The verdict on the variant `name`. Raises what its process fails with, if it fails."""
        from flatfold.proof.network.engine import check_engine

        variant = self.variants.get(name)
        if variant is None or variant.graph is None or not isinstance(runner, Process):
            return  # the second of the A/A pair
        failures: list[FlatfoldError] = []

        def run(feeds: Mapping[str, Any]) -> dict[str, Any]:
            try:
                return runner.run(feeds)
            except InputError:
                raise  # of this size it takes none
            except FlatfoldError as error:
                failures.append(error)
                raise

        reference, judge = self._judge()
        found = check_engine(
            run,
            runner.precision or "fp32",
            self.source.model,
            variant.graph,
            reference=reference,
            before=self._before(),
            progress=lambda label: self.progress(f"round 1 on {name}: {label}"),
        )
        if failures and not runner.alive:
            raise failures[-1]
        self.found[name] = replace(found, reference=judge) if found.reference and judge else found

    def _before(self) -> Reference | None:
        """The training graph as exported, which all variants are compared with, too."""
        from flatfold.proof.network.engine import original_session

        if self._original is None:
            with suppress(InputError):  # then the check says why
                # Twice, because an original that gives other outputs each time has to be told.
                self._original = _remembered(original_session(self.source.model), times=2)
        return self._original

    def _judge(self) -> tuple[Reference | None, str]:
        """What all variants are compared with, worked out once; its name where it is no module."""
        from flatfold.proof.network.reference import NoReference, onnx_reference
        from flatfold.sources import reference_of

        if self._reference is None:
            own = reference_of(self.source)
            try:
                exact, name = (own, "") if own else (onnx_reference(self.source.model), BY_ONNX)
                self._reference = _remembered(exact), name
            except NoReference:
                self._reference = None, ""
        return self._reference


def _remembered(reference: Reference, times: int = 1) -> Reference:
    """`reference`, which is asked the same question so many times, and no more."""
    known: dict[tuple[tuple[str, tuple[int, ...], bytes], ...], list[Any]] = {}

    def run(feeds: Mapping[str, Any]) -> Any:
        import hashlib

        key = tuple(
            (name, x.shape, hashlib.sha256(x.tobytes()).digest()) for name, x in feeds.items()
        )
        answers = known.setdefault(key, [])
        if len(answers) < times:
            answers.append(reference(feeds))
        return answers[-1]

    return run


AGAIN = " again"  # behind the name of the reference, which is measured twice
DRIFT = 0.05


def pairs_of(rows: Mapping[str, Row], noise: Estimate | None, plan: Plan) -> list[Pair]:
    """Each row beside the training graph, and flatfold beside each other row, on one target.

    A row that is wrong, or was not measured to the end, is in no pair.
    """
    reach = 0.0 if noise is None else noise.deviation
    found = []
    for row, other in _wanted([row for row in rows.values() if not row.wrong and not row.reason]):
        ratio = timing.ratio(row.samples_s, other.samples_s, seed=plan.seed)
        if ratio is not None:
            word = timing.verdict(ratio, noise=reach, delta=plan.delta)
            found.append(Pair(row.name, other.name, ratio, word))
    return found


def notes(report: ModelReport, plan: Plan) -> list[str]:
    """What a reader has to know before the times are believed."""
    found = []
    open_pairs = [pair for pair in report.pairs if pair.verdict == timing.INCONCLUSIVE]
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
    slower = timing.drift(reference.samples_s) if reference is not None else 0.0
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
    return timing.ratio(one.samples, other.samples)
