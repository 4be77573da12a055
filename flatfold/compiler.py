"""From a model to an engine, or to the one that was built of the same before."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from flatfold.errors import (
    FlatfoldError,
    Inaccurate,
    InputError,
    NotEquivalent,
    PassError,
    UnknownName,
)
from flatfold.result import Optimized
from flatfold.system.progress import Progress, silent

if TYPE_CHECKING:
    import onnx_ir as ir

    from flatfold.backends.base import Backend, Engine
    from flatfold.frontend.source import Source
    from flatfold.passes import LocalRewrite, Pipeline, Remark, Rewrite
    from flatfold.passes.cost.profiles import Profile
    from flatfold.passes.pipeline import Check
    from flatfold.proof.equivalence import Equivalence
    from flatfold.result import Optimized


VERIFY = ("off", "sample", "bound", "certify")


@dataclass(frozen=True)
class Choice:
    """How a graph is rewritten and proved. Raises UnknownName for a name that there is not."""

    target: str = "default"
    passes: tuple[str, ...] | None = None
    verify: str = "certify"
    simplify: bool = False

    def __post_init__(self) -> None:
        self.rewrites()
        profile_of(self.target)
        if self.verify not in VERIFY:
            raise UnknownName("verification", self.verify, VERIFY)

    @classmethod
    def of(cls, target: str, passes: Iterable[str] | None, verify: str, simplify: bool) -> Choice:
        """With the names of `passes` as they may be given: any iterable, None for all."""
        return cls(target, None if passes is None else tuple(passes), verify, simplify)

    def rewrites(self) -> list[Rewrite | LocalRewrite]:
        return rewrites_of(self.passes)

    def pipeline(self, check: Check | None = None) -> Pipeline:
        """The rewrites, with the costs of the target; `check` sees every change."""
        from flatfold.passes import Pipeline

        return Pipeline(self.rewrites(), profile_of(self.target), check)


def training_form(original: ir.Model) -> ir.Model:
    """The graph without the exporter's clutter: what the rewrites start from."""
    from flatfold.frontend.canonicalization.canonicalize import canonicalize

    graph = original.clone()
    canonicalize(graph)
    return graph


def rewritten(
    original: ir.Model, pipeline: Pipeline
) -> tuple[ir.Model, ir.Model, Sequence[Remark]]:
    """The rewritten graph, the training form it was made from, and the remarks.

    Raises InputError where the graph makes no sense, and whatever a rewrite raises where it does.
    """
    try:
        graph = training_form(original)
        training = graph.clone()
        return graph, training, pipeline.run(graph)
    except Exception as why:
        if isinstance(why, PassError) or not isinstance(why, FlatfoldError):
            _require_sense(original)  # what is invalid may break every promise
        raise


def _require_sense(original: ir.Model) -> None:
    """Raises InputError for a graph that nobody could run: it is to blame for what went wrong."""
    from flatfold.proof.network.run import compare

    compare(original, original)


def rewrites_of(passes: Iterable[str] | None) -> list[Rewrite | LocalRewrite]:
    """Those of these names, in the order of the pipeline; None for all. Raises UnknownName."""
    from flatfold.passes import PIPELINE

    known = {rewrite.name: rewrite for rewrite in PIPELINE}
    wanted = list(known) if passes is None else list(passes)
    for name in wanted:
        if name not in known:
            raise UnknownName("pass", name, known)
    return [known[name]() for name in known if name in wanted]


def profile_of(target: str) -> Profile:
    """What operators cost on `target`; a target without figures of its own has the default ones."""
    from flatfold.backends import TARGETS, best_target
    from flatfold.passes.cost.profiles import PROFILES

    name = best_target() if target == "auto" else target
    if name not in PROFILES and name not in TARGETS:
        known = {**PROFILES, **TARGETS}
        raise UnknownName("target", name, known, hint="`flatfold targets` lists them")
    return PROFILES.get(name, PROFILES["default"])


def unknown() -> Equivalence:
    """The verdict where nothing was to be proved."""
    from flatfold.proof.equivalence import Equivalence

    return Equivalence("unknown", reason="verification is off")


def identical() -> Equivalence:
    """The verdict on a graph that was left as it is."""
    from flatfold.proof.equivalence import Equivalence

    return Equivalence("identical", reason="the two graphs have the same bytes")


def proved(result: Optimized, checks: Any, progress: Progress) -> Optimized:
    """`result` with the verdict on its graph; `checks` are those of its changes, if any were made.

    Raises NotEquivalent where the graph differs from the original.
    """
    from flatfold.proof.network.run import compare

    progress("proving")
    found = compare(
        result.original,
        result.graph,
        reference=result.reference(),
        macs=result.before.macs or 0,
        progress=lambda label: progress(f"proving on {label}"),
    )
    regions = checks.regions if checks is not None else 0
    if found.verdict == "refuted" and not (regions and found.is_less_exact):
        raise NotEquivalent(str(found), where=f"input {found.worst_input}")
    if regions and found.verdict != "unknown":
        less = found.is_less_exact
        found = replace(
            found,
            verdict="certified" if checks.certified == regions and not less else "bounded",
            regions=regions,
            certified=checks.certified,
            region_ratio=checks.worst,
            doubts=tuple(checks.doubts),
            reason=(found.reason or "less exact than the original") if less else found.reason,
        )
    return replace(
        result, equivalence=found, changes=tuple(checks.entries) if checks is not None else None
    )


def optimized(source: Source, choice: Choice, progress: Progress) -> Optimized:
    """What the rewrites chosen make of a graph, with the proof that was asked for.

    Raises NotEquivalent rather than return a graph that differs.
    """
    from flatfold.proof.change import RegionChecks
    from flatfold.sources import is_same, reference_of

    progress("rewriting")
    verify = choice.verify
    checks = RegionChecks(certifying=verify == "certify") if verify in VERIFY[2:] else None
    graph, training, remarks = rewritten(source.model, choice.pipeline(checks))
    if choice.simplify:
        from flatfold.frontend.loading.onnxsim import simplify as clean

        progress("simplifying")
        graph, checks = clean(graph), None  # what onnxsim does is sampled, not bounded
    result = Optimized(
        source.name,
        graph,
        source.model,
        training,
        tuple(remarks),
        unknown(),
        reference=lambda: reference_of(source),
    )
    if verify == "off":
        return result
    if not any(remark.applied for remark in remarks) and is_same(source.model, graph):
        return replace(result, equivalence=identical())
    return proved(result, checks, progress)


class Results:
    """What `optimized` makes of one graph for several targets, proved once where that is the same.

    The choices may differ in their target, and in nothing else.
    """

    def __init__(self, source: Source, progress: Progress) -> None:
        self.source, self.progress = source, progress
        self._by_costs: dict[str, Optimized] = {}

    def of(self, choice: Choice) -> Optimized:
        """The same object for all targets that come to the same graph."""

        costs = profile_of(choice.target).name
        if costs not in self._by_costs:
            found = self._known(choice) or optimized(self.source, choice, self.progress)
            self._by_costs[costs] = found
        return self._by_costs[costs]

    def _known(self, choice: Choice) -> Optimized | None:
        """To rewrite without a proof, and to compare, takes less than to prove."""
        from flatfold.proof.certificate import fingerprint

        if not self._by_costs or choice.simplify:
            return None
        self.progress("rewriting")
        graph, _, _ = rewritten(self.source.model, choice.pipeline())
        wanted, results = fingerprint(graph), self._by_costs.values()
        return next((r for r in results if fingerprint(r.graph) == wanted), None)


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
    from flatfold.proof.network.engine import check_engine

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


AUTO = "auto"
Settings = Mapping[str, object]


@dataclass(frozen=True)
class Compiled:
    """An engine, and how it came about. `made` is None if it came from the cache."""

    engine: Engine
    source: Source
    made: Optimized | None

    @property
    def cached(self) -> bool:
        return self.made is None

    @cached_property
    def result(self) -> Optimized:
        """What `optimize` gave when the engine was built."""

        if self.made is not None:
            return self.made
        original, engine = self.source.model, self.engine
        graphs = original, training_form(original), engine.model
        return Optimized.from_record(engine.manifest, engine.certificate, *graphs)


def compiled(
    model: Any,
    target: str = AUTO,
    *,
    engine_options: Settings | Callable[[str], Settings] | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    passes: Iterable[str] | None = None,
    verify: str = "certify",
    simplify: bool = False,
    progress: Progress = silent,
    **reading: Any,
) -> Compiled:
    """`flatfold.compile`, with what there is to say about the engine.

    `engine_options` may be a function that gives those of each target.
    """
    from flatfold.engine_cache import through_cache
    from flatfold.sources import resolve

    wanted = targets_of(target)
    settings = _settings(wanted, engine_options)
    names = None if passes is None else tuple(passes)
    choices = {name: Choice.of(name, names, verify, simplify) for name in wanted}
    progress("exporting")
    making = _Making(resolve(model, **reading), choices, settings, progress)
    make = making.fastest if target == AUTO else making.only
    engine, cached = through_cache(cache_dir, making.key, make, progress)
    return Compiled(engine, making.source, None if cached else making.result(engine.target))


def targets_of(target: str) -> list[str]:
    """What may be built for: `target` itself, or with "auto" all that run here.

    Raises TargetUnavailable, with what is missing.
    """
    from flatfold.backends import running_targets

    return running_targets() if target == AUTO else [backend_for(target).name]


def _settings(
    targets: list[str], given: Settings | Callable[[str], Settings] | None
) -> dict[str, Settings]:
    if given and not callable(given) and len(targets) > 1:
        raise InputError(
            f"options of an engine are those of one target, and {' and '.join(targets)} run here",
            hint=f"name one of them as the target, such as {targets[0]!r}",
        )
    return {name: given(name) if callable(given) else given or {} for name in targets}


class _Making:
    """An engine for one of some targets."""

    def __init__(
        self,
        source: Source,
        choices: Mapping[str, Choice],
        settings: Mapping[str, Settings],
        progress: Progress,
    ) -> None:
        self.source, self.choices, self.settings = source, choices, settings
        self.progress = progress
        self._results = Results(source, progress)

    def key(self) -> str:
        """What identifies the engine: every target that could have been it has a part in that."""
        from flatfold.engine_cache import key_of

        keys = [
            key_of(self.source, choice, backend_for(name), self.settings[name])
            for name, choice in self.choices.items()
        ]
        return keys[0] if len(keys) == 1 else hashlib.sha256("".join(keys).encode()).hexdigest()

    def result(self, target: str) -> Optimized:
        return self._results.of(self.choices[target])

    def only(self) -> Engine:
        """The engine of the one target there is."""
        (target,) = self.choices
        return build(self.result(target), target, self.settings[target], self.progress)

    def fastest(self) -> Engine:
        """The engine that target "auto" chooses, which its manifest gives reasons for."""
        from flatfold.auto_target import Choice as Auto
        from flatfold.auto_target import choose
        from flatfold.backends import load_backend

        def beside(target: str) -> Engine:
            settings = {**self.settings[target], **load_backend(target).beside}
            return build(self.result(target), target, settings, self.progress)

        targets = list(self.choices)
        if len(targets) == 1:
            found, engine = Auto(targets[0], "it is the only target that runs here"), self.only()
        else:
            needs = {name: len(load_backend(name).needs) for name in targets}
            found, engine = choose(targets, beside, needs, self.progress)
            if load_backend(found.target).beside:  # alone it is better built another way
                engine.close()
                settings = self.settings[found.target]
                engine = build(self.result(found.target), found.target, settings, self.progress)
        engine.manifest[AUTO] = found.to_dict()
        return engine
