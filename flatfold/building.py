"""From a rewritten graph to an engine, and what the engine's own outputs are worth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from flatfold.errors import Inaccurate
from flatfold.optimizing import Progress, silent

if TYPE_CHECKING:
    from flatfold.backends.base import Backend, Engine
    from flatfold.proof.equivalence import Equivalence
    from flatfold.result import Optimized


def build(
    result: Optimized,
    target: str = "auto",
    engine_options: Mapping[str, object] | None = None,
    progress: Progress = silent,
) -> Engine:
    """An engine for a graph that has been optimized already; if that was proved, it is run, too.

    Where the options ask for less precision than the graph has, an engine without them is run
    first: what is off there is no rounding. Raises TargetUnavailable, BuildError, and Inaccurate
    where an engine computes something else.
    """
    backend, options = backend_for(target), engine_options or {}
    verdicts = {}
    strict = {**options, **backend.strict}
    if result.equivalence.passed and any(options.get(n, v) != v for n, v in strict.items()):
        with _built(backend, result, strict, progress) as engine:
            verdicts["strict_engine_equivalence"] = _checked(result, engine, progress).to_dict()
    engine = _built(backend, result, options, progress)
    engine.manifest.update({**result.record(), **verdicts})
    proved = result.certificate()
    engine.certificate = proved.to_dict() if proved is not None else None
    if result.equivalence.passed:
        try:
            engine.manifest["engine_equivalence"] = _checked(result, engine, progress).to_dict()
        except BaseException:
            engine.close()
            raise
    return engine


def _built(
    backend: Backend, result: Optimized, options: Mapping[str, object], progress: Progress
) -> Engine:
    progress(f"building for {backend.name}")
    return backend.build(result.graph, options, progress)


def _checked(result: Optimized, engine: Engine, progress: Progress) -> Equivalence:
    """What the engine's own outputs are worth. Raises Inaccurate."""
    from flatfold.proof.engine_check import check_engine

    found = check_engine(
        engine.run,
        engine.precision,
        result.original,
        result.graph,
        reference=result.reference(),
        progress=lambda label: progress(f"running the engine on {label}"),
    )
    if found.verdict == "refuted":
        raise Inaccurate(
            f"target {engine.target} is less accurate than {engine.precision} allows, while the "
            f"graph it runs is {result.equivalence.verdict}: {found}",
            where=f"input {found.worst_input}",
            hint="another target, or stricter options of this one",
        )
    return found


def backend_for(target: str) -> Backend:
    """The backend of `target`, "auto" being the best one here. Raises TargetUnavailable."""
    from flatfold.backends import best_target, load_backend

    backend = load_backend(best_target() if target == "auto" else target)
    backend.require()
    return backend
