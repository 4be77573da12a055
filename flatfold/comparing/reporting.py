"""Several models on several targets: the report, and what the machine was doing meanwhile."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from flatfold.comparing.data import ModelReport, Report
from flatfold.comparing.measuring import Plan
from flatfold.errors import FlatfoldError, InputError, TargetUnavailable

if TYPE_CHECKING:
    from flatfold.comparing.contest import Terms
    from flatfold.comparing.explained import Limit
    from flatfold.frontend.source import Source

AUTO = "auto"
Progress = Callable[[str], None]


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
    progress: Progress = lambda _: None,
) -> Report:
    """The report on the models that `sources` read, one after the other; see `flatfold.compare`.

    Where one of several models fails, its report has the reason.
    """
    from flatfold.comparing import machine
    from flatfold.comparing.contest import Terms, contest
    from flatfold.comparing.variants import chosen, rivals_of

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
    from flatfold.comparing.limits import measured

    with tempfile.TemporaryDirectory(prefix="flatfold-", ignore_cleanup_errors=True) as folder:
        return measured(terms.options, terms.threads, terms.affinity, Path(folder), progress)


def _options(targets: Sequence[str], threads: int) -> dict[str, Mapping[str, object]]:
    """The options of each target, which all have the same threads. Raises TargetUnavailable."""
    from flatfold.backends import load_backend
    from flatfold.compiling import targets_of

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
