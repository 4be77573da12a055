"""Checks of a measurement: the outputs of each row, the pairs that are compared, and warnings."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from flatfold import timing
from flatfold.benchmark.candidates.candidates import Candidate
from flatfold.benchmark.measure.process import Process
from flatfold.benchmark.measure.protocol import Plan, Record
from flatfold.benchmark.report import FLATFOLD, TORCH, TRAINING, ModelReport, Pair, Row
from flatfold.errors import FlatfoldError, InputError
from flatfold.system.progress import Progress
from flatfold.timing import Estimate

if TYPE_CHECKING:
    from flatfold.benchmark.measure.protocol import Runner
    from flatfold.frontend import Source
    from flatfold.proof import Equivalence, Reference


BY_ONNX = "the ONNX reference in float64"
AGAIN = " again"  # behind the name of the reference, which is measured twice
DRIFT = 0.05  # of the machine's speed, above which a note says so


class Checks:
    """Compares the outputs of each candidate with one float64 reference and with the original.

    The limits are those of `proof.network.engine`. `equivalences` has the verdicts by row.
    """

    def __init__(
        self, source: Source, candidates: Mapping[str, Candidate], progress: Progress
    ) -> None:
        self.source, self.candidates, self.progress = source, candidates, progress
        self.equivalences: dict[str, Equivalence] = {}
        self._reference: tuple[Reference | None, str] | None = None
        self._original: Reference | None = None

    def inspect(self, name: str, runner: Runner) -> None:
        """Checks the candidate `name` in its own process. Raises the error that ends the process.

        Does nothing for the second process of the reference.
        """
        from flatfold.proof import check_engine

        candidate = self.candidates.get(name)
        if candidate is None or candidate.graph is None or not isinstance(runner, Process):
            return
        failures: list[FlatfoldError] = []

        def run(feeds: Mapping[str, Any]) -> dict[str, Any]:
            try:
                return runner.run(feeds)
            except InputError:
                raise  # it does not accept inputs of this size
            except FlatfoldError as error:
                failures.append(error)
                raise

        reference, reference_name = self._float64_reference()
        equivalence = check_engine(
            run,
            runner.precision or "fp32",
            self.source.model,
            candidate.graph,
            reference=reference,
            before=self._original_outputs(),
            proved=False,  # another tool may have written it
            progress=lambda label: self.progress(f"round 1 on {name}: {label}"),
        )
        if failures and not runner.alive:
            raise failures[-1]
        if equivalence.reference and reference_name:
            equivalence = replace(equivalence, reference=reference_name)
        self.equivalences[name] = equivalence

    def _original_outputs(self) -> Reference | None:
        """The graph as exported, run by ONNX Runtime; None where it cannot be run."""
        from flatfold.proof import original_session

        if self._original is None:
            with suppress(InputError):  # then the check says why
                # Twice, so that the check sees an original whose outputs vary.
                self._original = _remembered(original_session(self.source.model), times=2)
        return self._original

    def _float64_reference(self) -> tuple[Reference | None, str]:
        """The reference of all candidates, and its name where it is not the module."""
        from flatfold.proof import NoReference, onnx_reference
        from flatfold.sources import reference_of

        if self._reference is None:
            module = reference_of(self.source)
            try:
                if module:
                    self._reference = _remembered(module), ""
                else:
                    self._reference = _remembered(onnx_reference(self.source.model)), BY_ONNX
            except NoReference:
                self._reference = None, ""
        return self._reference


def _remembered(reference: Reference, times: int = 1) -> Reference:
    """`reference`, run at most `times` times for the same inputs; later calls repeat the last."""
    known: dict[tuple[tuple[str, tuple[int, ...], bytes], ...], list[Any]] = {}

    def run(feeds: Mapping[str, Any]) -> Any:
        key = tuple(
            (name, x.shape, hashlib.sha256(x.tobytes()).digest()) for name, x in feeds.items()
        )
        outputs = known.setdefault(key, [])
        if len(outputs) < times:
            outputs.append(reference(feeds))
        return outputs[-1]

    return run


def with_measurements(
    rows: Mapping[str, Row],
    records: Mapping[str, Record],
    equivalences: Mapping[str, Equivalence],
) -> dict[str, Row]:
    """The rows with the times and the verdicts that are known so far."""
    measured = {}
    for name, row in rows.items():
        record = records.get(name)
        if record is None:
            measured[name] = row
            continue
        last = record.started[-1] if record.started else None
        measured[name] = replace(
            row,
            precision=last.precision if last else "",
            layers=last.layers if last else None,
            equivalence=equivalences.get(name),
            samples_s=tuple(tuple(map(tuple, process)) for process in record.samples),
            build_s=tuple(s.build_s for s in record.started if s.build_s is not None),
            first_call_s=tuple(started.first_call_s for started in record.started),
            steady=record.steady,
            reason=record.reason,
        )
    return measured


def noise_floor(records: Mapping[str, Record], reference: str) -> Estimate | None:
    """The ratio of the reference to itself in another process (an A/A pair)."""
    one, other = records.get(reference), records.get(reference + AGAIN)
    if one is None or other is None:
        return None
    return timing.ratio(one.samples, other.samples)


def pairs_of(rows: Mapping[str, Row], noise: Estimate | None, plan: Plan) -> list[Pair]:
    """Each row relative to the training graph, and flatfold to each other row of its target.

    A row of another precision is compared with flatfold's in float32 only. A row that is wrong, or
    was not measured to the end, is in no pair.
    """
    floor = 0.0 if noise is None else noise.deviation
    comparable = [row for row in rows.values() if not row.wrong and not row.reason]
    pairs = []
    for row, other in _rows_to_compare(comparable):
        ratio = timing.ratio(row.samples_s, other.samples_s, seed=plan.seed)
        if ratio is not None:
            verdict = timing.verdict(ratio, noise=floor, delta=plan.delta)
            pairs.append(Pair(row.name, other.name, ratio, verdict))
    return pairs


def _rows_to_compare(rows: Sequence[Row]) -> list[tuple[Row, Row]]:
    """A row of PyTorch is compared with the first training graph, and with flatfold everywhere."""
    narrow = [row for row in rows if row.rounded is not None]
    rows = [row for row in rows if row.rounded is None]
    trained = {row.target: row for row in rows if row.variant == TRAINING}
    first = next(iter(trained.values()), None)
    pairs = []
    for row in rows:
        base = trained.get(row.target) or first
        if base is not None and row.variant != TRAINING:
            pairs.append((row, base))
    for ours in (row for row in rows if row.variant == FLATFOLD):
        for row in rows:
            comparable = row.target in (ours.target, TORCH)
            if comparable and row.variant not in (FLATFOLD, TRAINING):
                pairs.append((ours, row))
        pairs += [(row, ours) for row in narrow if row.target == ours.target]
    return pairs


def notes(report: ModelReport, plan: Plan) -> list[str]:
    """Warnings for the reader of the times."""
    warnings = []
    undecided = sum(pair.verdict == timing.INCONCLUSIVE for pair in report.pairs)
    if undecided:
        warnings.append(
            f"{undecided} of {len(report.pairs)} pairs are undecided after "
            f"{report.rounds} rounds: give it a larger budget or a quieter machine"
        )
    if report.noise is None:
        warnings.append("the noise floor could not be measured")
    elif report.noise.deviation > plan.delta:
        warnings.append(
            f"the same program differs from itself by up to {report.noise.deviation:.1%}, "
            f"more than the {plan.delta:.0%} below which times are called the same"
        )
    reference = report.row(report.reference)
    slower = timing.drift(reference.samples_s) if reference is not None else 0.0
    if abs(slower) > DRIFT:
        warnings.append(
            f"the machine drifted: the time of {report.reference} changed by {slower:+.1%} "
            "from the earlier rounds to the later ones"
        )
    unsteady = [row.name for row in report.rows if not row.steady]
    if unsteady:
        warnings.append(f"not steady after the warm-up: {', '.join(unsteady)}")
    precisions = {row.precision for row in report.rows if row.precision and not row.rounded}
    if len(precisions) > 1:
        warnings.append(f"not all rows ran in one precision: {', '.join(sorted(precisions))}")
    return warnings
