"""One model: its variants made, checked against the training graph, measured, and compared."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from flatfold import timing
from flatfold.benchmark.candidates.candidates import Kitchen, Variant
from flatfold.benchmark.checks import AGAIN, Checks, judged, noise_of, notes, pairs_of
from flatfold.benchmark.explain.layers import with_floors, with_profiles, with_steps
from flatfold.benchmark.measure import arrays
from flatfold.benchmark.measure.job import Job
from flatfold.benchmark.measure.process import Process
from flatfold.benchmark.measure.protocol import Measured, Plan, Record, measure
from flatfold.benchmark.report import Limit, ModelReport, Report, Row
from flatfold.errors import FlatfoldError, InputError, TargetUnavailable
from flatfold.system.isolated import TIME_LIMIT
from flatfold.system.progress import Progress, silent

if TYPE_CHECKING:
    from flatfold.benchmark.report import Limit
    from flatfold.frontend import Source


@dataclass(frozen=True)
class Terms:
    """What is the same for all variants: options by target, threads, cores, sizes, and the plan.

    With `explain`, what each rewrite and each layer takes is measured, too; `limits` are those of
    this machine.
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
    time_limit: float = TIME_LIMIT


def contest(
    source: Source, against: Sequence[str], terms: Terms, progress: Progress
) -> ModelReport:
    """The report on one model. A variant that fails is a row with its reason.

    Raises InputError where a size is missing, or where no variant can be measured.
    """
    with tempfile.TemporaryDirectory(prefix="flatfold-", ignore_cleanup_errors=True) as name:
        found = _Contest(source, against, terms, Path(name), progress)
        measured = found.measure()
        report = found.report(measured)
        if terms.explain:
            report = found.explained(report, measured)
    return replace(report, notes=tuple(notes(report, terms.plan)))


class _Contest:
    """The variants of one model and what is known of them, with their files in `folder`."""

    def __init__(
        self,
        source: Source,
        against: Sequence[str],
        terms: Terms,
        folder: Path,
        progress: Progress,
    ) -> None:
        self.source, self.terms, self.folder, self.progress = source, terms, folder, progress
        feeds = folder / "feeds.npz"
        self.shapes = _store_feeds(source, terms, feeds)
        common = Job("", "", terms.threads, tuple(terms.affinity), str(feeds))
        self.batch = next((shape[0] for shape in self.shapes.values() if shape), 1)
        kitchen = Kitchen(source, common, terms.options, folder, progress, self.batch)
        self.variants = kitchen.variants(against, terms.verify)
        self.ways = kitchen.ways() if terms.explain else []
        self.reference = self.variants[0].row.name
        every = [*self.variants, *(v for way in self.ways for v in way.variants)]
        self.checks = Checks(source, {v.row.name: v for v in every}, progress)
        self.launch = self._launchers(every)

    def measure(self) -> Measured:
        return measure(
            self.launch,
            self._undecided,
            self.terms.plan,
            inspect=self.checks.inspect,
            progress=self.progress,
        )

    def report(self, measured: Measured) -> ModelReport:
        """Which is faster, and by how much."""
        rows = self._rows(self.variants, measured.records)
        noise = noise_of(measured.records, self.reference)
        return ModelReport(
            self.source.name,
            self.shapes,
            self.reference,
            tuple(rows.values()),
            tuple(pairs_of(rows, noise, self.terms.plan)),
            noise,
            measured.rounds,
            measured.decided,
        )

    def explained(self, report: ModelReport, measured: Measured) -> ModelReport:
        """The same with what each rewrite contributed, and where the time goes."""
        between = [v for way in self.ways for v in way.variants]
        steps = tuple(self._rows(between, measured.records).values())
        limits, batch = self.terms.limits, self.batch
        rows = with_floors(report.rows, self.variants, limits, batch)
        report = replace(report, rows=rows, step_rows=steps)
        for way in self.ways:
            report = with_steps(report, way, self.terms.plan)
            self.progress(f"profiling on {way.target}")
            report = with_profiles(report, way, self.launch, limits, batch)
        return report

    def _undecided(self, records: Mapping[str, Record]) -> set[str]:
        """The rows of all pairs that are, and both of the A/A pair, which limits each verdict."""
        rows = self._rows(self.variants, records)
        pairs = pairs_of(rows, noise_of(records, self.reference), self.terms.plan)
        still = [pair for pair in pairs if pair.verdict == timing.INCONCLUSIVE]
        both = {self.reference, self.reference + AGAIN} if still else set()
        return both.union(*((pair.row, pair.against) for pair in still))

    def _rows(self, variants: Sequence[Variant], records: Mapping[str, Record]) -> dict[str, Row]:
        return judged({v.row.name: v.row for v in variants}, records, self.checks.found)

    def _launchers(self, variants: Sequence[Variant]) -> dict[str, Callable[[], Process]]:
        able = {v.row.name: v.job for v in variants if v.job is not None}
        if not able:
            reasons = "; ".join(v.row.reason for v in variants)
            raise InputError("no variant can be measured", where=reasons)
        if self.reference in able:
            able[self.reference + AGAIN] = able[self.reference]
        return {name: self._launcher(job) for name, job in able.items()}

    def _launcher(self, job: Job) -> Callable[[], Process]:
        return lambda: Process(job, self.folder, self.terms.time_limit)


def _store_feeds(source: Source, terms: Terms, path: Path) -> dict[str, tuple[int, ...]]:
    """Writes the inputs that all variants are given, and says how large they are."""
    from flatfold.backends import check_sizes, random_feeds, shapes_of, specs_of

    specs = specs_of(v for v in source.model.graph.inputs if not v.is_initializer())
    check_sizes(specs, terms.batch, terms.image)
    shapes = shapes_of(specs, terms.batch, terms.image)
    arrays.store(path, random_feeds(specs, shapes))
    return shapes


AUTO = "auto"


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
    progress: Progress = silent,
) -> Report:
    """The report on the models that `sources` read, one after the other; see `flatfold.compare`.

    Where one of several models fails, its report has the reason.
    """
    from flatfold.benchmark.candidates.candidates import chosen, rivals_of
    from flatfold.benchmark.machine import machine

    if not sources:
        raise InputError("expected at least one model, found none")
    if threads is not None and threads < 1:
        raise InputError(f"expected at least one thread, found {threads}")
    wanted = None if against is None else list(against)
    if wanted is not None:
        chosen(wanted, has_module=True)  # a wrong name is told before anything is measured
    count = machine.default_threads() if threads is None else threads
    options, places = _options(targets, count), machine.cores_for(count)
    terms = Terms(options, count, places, plan, verify, batch, image, explain)
    limits: tuple[Limit, ...] | None = None if explain else ()
    states = [machine.state()]
    models: list[ModelReport] = []
    for number, read in enumerate(sources, 1):
        progress("exporting")
        name = f"model {number}"
        try:
            source = read()
            name = source.name
            if limits is None:  # only now, as there may be no such model
                limits = _limits(terms, progress)
                terms = replace(terms, limits=limits)
            found = contest(source, rivals_of(source, wanted), terms, progress)
        except FlatfoldError as error:
            if len(sources) == 1:
                raise
            found = ModelReport(name, {}, reason=error.cause)  # what the others took is not lost
        states.append(machine.state())
        loud = machine.warnings(states[-2], states[-1])
        models.append(replace(found, notes=(*loud, *found.notes)))
    facts = {"threads": count, "affinity": places, "targets": list(options), "seed": plan.seed}
    told = machine.environment(states[0], states[-1], facts)
    asked = {**asdict(plan), "verify": verify, "against": wanted, "explain": explain}
    return Report(tuple(models), told, asked, limits or ())


def _limits(terms: Terms, progress: Progress) -> tuple[Limit, ...]:
    from flatfold.benchmark.machine.roofline import measured

    with tempfile.TemporaryDirectory(prefix="flatfold-", ignore_cleanup_errors=True) as folder:
        return measured(terms.options, terms.threads, terms.affinity, Path(folder), progress)


def _options(targets: Sequence[str], threads: int) -> dict[str, Mapping[str, object]]:
    """The options of each target, which all have the same threads. Raises TargetUnavailable."""
    from flatfold.backends import load_backend
    from flatfold.compiler import targets_of

    names = dict.fromkeys(name for target in targets for name in targets_of(target))
    found: dict[str, Mapping[str, object]] = {}
    for name in names:
        backend = load_backend(name)
        state = backend.availability()
        if not state.runs:
            raise TargetUnavailable(
                f"nothing can be timed here: {state.reason}",
                where=f"target {name}",
                hint=state.hint,
            )
        found[name] = {backend.threads: threads} if backend.threads else {}
    return found
