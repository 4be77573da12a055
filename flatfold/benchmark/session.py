"""A session: the candidates of a model are made, checked, measured and compared."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flatfold import timing
from flatfold.benchmark.candidates.candidates import (
    Candidate,
    Candidates,
    names_for_source,
    names_to_compare,
)
from flatfold.benchmark.checks import (
    AGAIN,
    Checks,
    noise_floor,
    notes,
    pairs_of,
    with_measurements,
)
from flatfold.benchmark.explain.layers import with_floors, with_profiles, with_steps
from flatfold.benchmark.measure import arrays
from flatfold.benchmark.measure.job import Job
from flatfold.benchmark.measure.process import Process
from flatfold.benchmark.measure.protocol import Measured, Plan, Record, measure
from flatfold.benchmark.report import Limit, ModelReport, Report, Row
from flatfold.errors import FlatfoldError, InputError, TargetUnavailable
from flatfold.precision import Precision
from flatfold.system.isolated import TIME_LIMIT
from flatfold.system.progress import Progress, silent

if TYPE_CHECKING:
    from flatfold.frontend import Source


@dataclass(frozen=True)
class Settings:
    """What all candidates have in common: options by target, threads, cores, sizes, and the plan.

    With `explain`, the time of each rewrite and of each layer is measured, too; `limits` are those
    of this machine. `time_limit` is in seconds, for one command of a worker.
    """

    options: Mapping[str, Mapping[str, object]]
    threads: int
    affinity: Sequence[int]
    plan: Plan
    verify: str = "certify"
    batch: int | None = None
    image: tuple[int, ...] | None = None
    explain: bool = True
    limits: tuple[Limit, ...] = ()
    precisions: tuple[str, ...] = ("fp32",)
    calibration: Any = None
    time_limit: float = TIME_LIMIT


def report_on(
    sources: Sequence[Callable[[], Source]],
    targets: Sequence[str],
    *,
    against: Iterable[str] | None,
    threads: int | None,
    plan: Plan,
    verify: str = "certify",
    batch: int | None = None,
    image: tuple[int, ...] | None = None,
    explain: bool = True,
    precisions: Iterable[str] = ("fp32",),
    calibration: Any = None,
    progress: Progress = silent,
) -> Report:
    """The report on the models that `sources` read, one after the other; see `flatfold.compare`.

    A model that fails is in the report with its reason, unless it is the only one.
    """
    from flatfold.benchmark.machine import machine

    if not sources:
        raise InputError("expected at least one model, found none")
    if threads is not None and threads < 1:
        raise InputError(f"expected at least one thread, found {threads}")
    names = None if against is None else list(against)
    names_to_compare(names)  # raises for a wrong name before anything is measured
    count = machine.default_threads() if threads is None else threads
    options, cores = _options(targets, count), machine.cores_for(count)
    kinds = tuple(Precision(kind).kind for kind in precisions)
    settings = Settings(
        *(options, count, cores, plan, verify, batch, image, explain),
        precisions=kinds,
        calibration=calibration,
    )
    has_limits = not explain
    states = [machine.state()]
    models: list[ModelReport] = []
    for number, read in enumerate(sources, 1):
        progress("exporting")
        name = f"model {number}"
        try:
            source = read()
            name = source.name
            if not has_limits:  # they take a while: not before a model could be read
                settings, has_limits = replace(settings, limits=_limits(settings, progress)), True
            model = report_on_model(source, names_for_source(source, names), settings, progress)
        except FlatfoldError as error:
            if len(sources) == 1:
                raise
            model = ModelReport(name, {}, reason=error.cause)  # the other models are not lost
        states.append(machine.state())
        warnings = machine.warnings(states[-2], states[-1])
        models.append(replace(model, notes=(*warnings, *model.notes)))
    facts = {"threads": count, "affinity": cores, "targets": list(options), "seed": plan.seed}
    environment = machine.environment(states[0], states[-1], facts)
    asked = {**asdict(plan), "verify": verify, "against": names, "explain": explain}
    asked["precisions"] = list(kinds)
    return Report(tuple(models), environment, asked, settings.limits)


def _options(targets: Sequence[str], threads: int) -> dict[str, Mapping[str, object]]:
    """The options of each target, which set the number of threads. Raises TargetUnavailable."""
    from flatfold.backends import load_backend
    from flatfold.compiler import targets_of

    options: dict[str, Mapping[str, object]] = {}
    for name in dict.fromkeys(name for target in targets for name in targets_of(target)):
        backend = load_backend(name)
        state = backend.availability()
        if not state.runs:
            raise TargetUnavailable(
                f"nothing can be timed here: {state.reason}",
                where=f"target {name}",
                hint=state.hint,
            )
        options[name] = {backend.threads: threads} if backend.threads else {}
    return options


def _limits(settings: Settings, progress: Progress) -> tuple[Limit, ...]:
    from flatfold.benchmark.machine.roofline import measured_limits

    threads, cores = settings.threads, settings.affinity
    with tempfile.TemporaryDirectory(prefix="flatfold-", ignore_cleanup_errors=True) as folder:
        return measured_limits(settings.options, threads, cores, Path(folder), progress)


def report_on_model(
    source: Source, against: Sequence[str], settings: Settings, progress: Progress
) -> ModelReport:
    """The report on one model. A candidate that fails is a row with its reason.

    Raises InputError where a size is missing, or where no candidate can be measured.
    """
    with tempfile.TemporaryDirectory(prefix="flatfold-", ignore_cleanup_errors=True) as name:
        session = Session(source, against, settings, Path(name), progress)
        measured = session.measure()
        report = session.report(measured)
        if settings.explain:
            report = session.explained(report, measured)
    return replace(report, notes=tuple(notes(report, settings.plan)))


class Session:
    """The candidates of one model and what is known of them, with their files in `folder`."""

    def __init__(
        self,
        source: Source,
        against: Sequence[str],
        settings: Settings,
        folder: Path,
        progress: Progress,
    ) -> None:
        self.source, self.settings, self.folder = source, settings, folder
        self.progress = progress
        feeds = folder / "feeds.npz"
        self.shapes = _store_feeds(source, settings, feeds)
        common = Job("", "", settings.threads, tuple(settings.affinity), str(feeds))
        self.batch = next((shape[0] for shape in self.shapes.values() if shape), 1)
        maker = Candidates(
            *(source, common, settings.options, folder, progress, self.batch),
            precisions=settings.precisions,
            calibration=settings.calibration,
        )
        self.candidates = maker.all(against, settings.verify)
        self.ablations = maker.ablations() if settings.explain else []
        self.reference = self.candidates[0].row.name
        self.steps = [c for ablation in self.ablations for c in ablation.candidates]
        every = [*self.candidates, *self.steps]
        self.checks = Checks(source, {c.row.name: c for c in every}, progress)
        self.launch = self._launchers(every)

    def measure(self) -> Measured:
        """Checks and times every candidate."""
        return measure(
            self.launch,
            self._undecided,
            self.settings.plan,
            inspect=self.checks.inspect,
            progress=self.progress,
        )

    def report(self, measured: Measured) -> ModelReport:
        """The rows, and which of them is faster, and by how much."""
        rows = self._rows(self.candidates, measured.records)
        noise = noise_floor(measured.records, self.reference)
        return ModelReport(
            self.source.name,
            self.shapes,
            self.reference,
            tuple(rows.values()),
            tuple(pairs_of(rows, noise, self.settings.plan)),
            noise,
            measured.rounds,
            measured.decided,
        )

    def explained(self, report: ModelReport, measured: Measured) -> ModelReport:
        """`report` with the effect of each rewrite, and the time of each layer."""
        steps = tuple(self._rows(self.steps, measured.records).values())
        limits, batch = self.settings.limits, self.batch
        rows = with_floors(report.rows, self.candidates, limits, batch)
        report = replace(report, rows=rows, step_rows=steps)
        for ablation in self.ablations:
            report = with_steps(report, ablation, self.settings.plan)
            self.progress(f"profiling on {ablation.target}")
            report = with_profiles(report, ablation, self.launch, limits, batch)
        return report

    def _undecided(self, records: Mapping[str, Record]) -> set[str]:
        """The rows of all undecided pairs, and both of the A/A pair, which limits each verdict."""
        rows = self._rows(self.candidates, records)
        noise = noise_floor(records, self.reference)
        pairs = pairs_of(rows, noise, self.settings.plan)
        undecided = [pair for pair in pairs if pair.verdict == timing.INCONCLUSIVE]
        both = {self.reference, self.reference + AGAIN} if undecided else set()
        return both.union(*((pair.row, pair.against) for pair in undecided))

    def _rows(
        self, candidates: Sequence[Candidate], records: Mapping[str, Record]
    ) -> dict[str, Row]:
        rows = {candidate.row.name: candidate.row for candidate in candidates}
        return with_measurements(rows, records, self.checks.equivalences)

    def _launchers(self, candidates: Sequence[Candidate]) -> dict[str, Callable[[], Process]]:
        """Starts a worker for each candidate; a second one for the reference, as an A/A pair."""
        jobs = {c.row.name: c.job for c in candidates if c.job is not None}
        if not jobs:
            reasons = "; ".join(candidate.row.reason for candidate in candidates)
            raise InputError("no variant can be measured", where=reasons)
        if self.reference in jobs:
            jobs[self.reference + AGAIN] = jobs[self.reference]
        return {name: self._launcher(job) for name, job in jobs.items()}

    def _launcher(self, job: Job) -> Callable[[], Process]:
        return lambda: Process(job, self.folder, self.settings.time_limit)


def _store_feeds(source: Source, settings: Settings, path: Path) -> dict[str, tuple[int, ...]]:
    """Writes the inputs of all candidates, drawn at random, and returns their shapes."""
    from flatfold.backends import check_sizes, random_feeds, shapes_of, specs_of
    from flatfold.proof import sizes_that_run

    specs = specs_of(v for v in source.model.graph.inputs if not v.is_initializer())
    check_sizes(specs, settings.batch, settings.image)
    likely = sizes_that_run(source.model, source.shapes)[-1]
    shapes = shapes_of(specs, settings.batch, settings.image, likely)
    arrays.store(path, random_feeds(specs, shapes))
    return shapes
