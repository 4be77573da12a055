"""From a model to an engine: resolve, canonicalize, rewrite, prove, build, check.

compiler = Compiler.resolve("repvgg_a0")
options = Options("ort-cpu")
result = compiler.optimize(options)          # canonicalize, rewrite, prove
engine = compiler.build(result, options)     # build, check
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from flatfold.errors import (
    BuildError,
    Degraded,
    FlatfoldError,
    Inaccurate,
    InputError,
    NotEquivalent,
    PassError,
    PrecisionUnavailable,
    UnknownName,
)
from flatfold.precision import FULL, IN_CODES, Precision
from flatfold.result import Optimized
from flatfold.system.progress import Progress, silent
from flatfold.tuning import ESTIMATED, Tuned, Variant

if TYPE_CHECKING:
    import onnx_ir as ir

    from flatfold.backends import Backend, Engine
    from flatfold.frontend import Source
    from flatfold.passes import LocalRewrite, Pipeline, Remark, Rewrite
    from flatfold.passes.cost.profiles import Profile
    from flatfold.passes.pipeline import Check
    from flatfold.proof import Equivalence, RegionChecks

AUTO = "auto"
MOST_ROUNDS = 8  # of rewrites and clean-up; two are usual
VERIFY = ("off", "sample", "bound", "certify")  # each proves more than the one before
DRAWN = ("normal", "natural", "natural 2")  # where no data is given that a model is run on
IMAGE = (224, 224)  # the size to time at where a model leaves that of its images open


@dataclass(frozen=True)
class Options:
    """What to compile for, which rewrites to use, how much to prove, and options of the engine.

    `passes` are names of rewrites in any order, None for all. `precision` says which types the
    graph has. `tune`: seconds for finding a faster
    engine than the estimated one; None only takes back what is slower than the model as it came, 0
    measures nothing. Raises UnknownName for a target, a rewrite or a level of verification that
    does not exist, and InputError for less than no time.
    """

    target: str = "default"
    passes: Iterable[str] | None = None
    verify: str = "certify"
    simplify: bool = False
    engine_options: Mapping[str, object] = field(default_factory=dict)
    tune: float | None = None
    precision: Precision = FULL
    variant: Variant = ESTIMATED

    def __post_init__(self) -> None:
        if self.passes is not None:
            object.__setattr__(self, "passes", tuple(self.passes))
        self.rewrites()
        self.profile()
        if self.verify not in VERIFY:
            raise UnknownName("verification", self.verify, VERIFY)
        if self.tune is not None and not 0 <= self.tune < math.inf:
            raise InputError(f"expected 0 or more seconds for tuning, found {self.tune:g}")

    def rewrites(self) -> list[Rewrite | LocalRewrite]:
        """The rewrites to use, in the order of the pipeline."""
        from flatfold.passes import PIPELINE

        known = {rewrite.name: rewrite for rewrite in PIPELINE}
        names = list(known) if self.passes is None else list(self.passes)
        for name in names:
            if name not in known:
                raise UnknownName("pass", name, known)
        names = [name for name in names if name not in self.variant.without]
        return [rewrite() for name, rewrite in known.items() if name in names]

    def profile(self) -> Profile:
        """What operators cost on the target; the default costs where the target has none."""
        from flatfold.backends import TARGETS, best_target
        from flatfold.passes.cost.profiles import EXTREMES, PROFILES

        if self.variant.costs:
            return {**EXTREMES, **PROFILES}[self.variant.costs]
        name = best_target() if self.target == AUTO else self.target
        if name not in PROFILES and name not in TARGETS:
            known = {**PROFILES, **TARGETS}
            raise UnknownName("target", name, known, hint="`flatfold targets` lists them")
        return PROFILES.get(name, PROFILES["default"])

    def cache_key(self) -> dict[str, object]:
        """Everything here that decides which engine is built, but for the target: JSON values."""
        return {
            "passes": [rewrite.name for rewrite in self.rewrites()],
            "verify": self.verify,
            "simplify": self.simplify,
            "tune": self.tune,
            "precision": self.precision.to_dict(),
            "options": sorted((str(name), repr(v)) for name, v in self.engine_options.items()),
        }


def targets_of(target: str, precision: str = FULL.kind) -> list[str]:
    """The targets that may be built for: `target`, or every one that runs here for "auto".

    Raises TargetUnavailable, with what is missing, and PrecisionUnavailable where none of them
    computes in `precision`.
    """
    from flatfold.backends import load_backend, running_targets

    names = running_targets() if target == AUTO else [_backend(target).name]
    computing = [name for name in names if precision in load_backend(name).precisions]
    if not computing:
        raise _unavailable(names, precision)
    return computing


def _unavailable(targets: Sequence[str], precision: str) -> PrecisionUnavailable:
    from flatfold.backends import TARGETS, load_backend

    others = [name for name in TARGETS if precision in load_backend(name).precisions]
    return PrecisionUnavailable(
        f"{' and '.join(targets)} cannot compute in {precision}",
        where=f"target {targets[0]}" if len(targets) == 1 else "",
        hint=f"{precision} runs on {', '.join(others)}",
    )


@dataclass(frozen=True)
class Compiled:
    """An engine, and whether it came from the cache."""

    engine: Engine
    cached: bool
    read_result: Callable[[], Optimized]

    @cached_property
    def result(self) -> Optimized:
        """What `optimize` returned when the engine was built."""
        return self.read_result()


class Compiler:
    """One model on its way to an engine. The methods stand in the order of the steps.

    Several targets may be compiled for; a graph that is best for more than one is proved once.
    """

    def __init__(
        self, source: Source, progress: Progress = silent, calibration: Any = None
    ) -> None:
        self.source, self.progress = source, progress
        self._calibration = calibration
        # By everything but the target, then by the name of its costs.
        self._results: dict[tuple[object, ...], dict[str, Optimized]] = {}
        self._tuned: dict[str, Tuned] = {}  # by target

    @classmethod
    def resolve(
        cls, model: Any, progress: Progress = silent, calibration: Any = None, **reading: Any
    ) -> Compiler:
        """The compiler of any form of model; `reading` says how to read or export it.

        `calibration` is data to run the model on where the precision depends on how large its
        values are, see `read_calibration`. Raises InputError and ExportError.
        """
        from flatfold.sources import resolve

        progress("exporting")
        return cls(resolve(model, **reading), progress, calibration)

    @cached_property
    def sizes(self) -> list[dict[str, tuple[int, ...]]]:
        """The shapes of all inputs at which the model is run: as asked for, or likely ones.

        Raises InputError where it runs at none.
        """
        from flatfold.proof import sizes_that_run

        return sizes_that_run(self.source.model, self.source.shapes, self.run_original)

    @cached_property
    def _session(self) -> Any:
        from flatfold.proof import original_session

        return original_session(self.source.model)

    def run_original(self, feeds: Mapping[str, Any]) -> Any:
        """Outputs of the model, not optimised. Raises InputError where it cannot be run at all."""
        return self._session(feeds)

    def optimize(self, options: Options) -> Optimized:
        """The rewritten graph, with the proof that `options.verify` asks for.

        The same object for all targets that get the same graph. Raises NotEquivalent rather than
        return a graph that differs from the original.
        """
        costs = options.profile().name
        variant = replace(options.variant, costs="", engine_options=())
        key = options.passes, options.verify, options.simplify, options.precision, variant
        by_costs = self._results.setdefault(key, {})
        if costs not in by_costs:
            same = self._same_graph(options, by_costs.values())
            by_costs[costs] = same or self._in_precision(options)
        return by_costs[costs]

    def _in_precision(self, options: Options) -> Optimized:
        """The graph with the types that `options.precision` asks for; only what is in float32 is
        proved to be equal, what the other types round is measured."""
        result = self._rewrite_and_prove(options)
        if options.precision == FULL:
            return result
        if options.precision.in_codes:
            return self._in_codes(result, options)
        from flatfold.narrowing import in_precision

        self.progress(f"finding what can compute in {options.precision.kind}")
        runs, given = self.calibration
        return in_precision(result, options.precision, runs, given=given)

    def _in_codes(self, equalized: Optimized, options: Options) -> Optimized:
        """The graph in 8 bits, in the dialect of the target."""
        from flatfold.quantizing.judgement import in_codes

        self.progress(f"finding what can compute in {options.precision.kind}")
        runs, given = self.calibration
        plain = self.optimize(replace(options, precision=FULL))
        precision, target, progress = options.precision, options.target, self.progress
        return in_codes(equalized, plain, precision, runs, target, given=given, progress=progress)

    @cached_property
    def calibration(self) -> tuple[list[dict[str, Any]], bool]:
        """Inputs to run the model on, and whether they were given, rather than drawn."""
        from flatfold.calibration import RANDOM, is_random, read_calibration
        from flatfold.proof.network.inputs import draw_feeds, input_specs

        specs = input_specs(self.source.model)
        if is_random(self._calibration):
            sizes, seeds = self.sizes[-1], range(RANDOM)
            drawn = (draw_feeds(specs, sizes, seed, DRAWN[:1]) for seed in seeds)
            return [feeds for one in drawn for _, feeds in one], False
        if self._calibration is not None:
            return read_calibration(self._calibration, specs), True
        return [feeds for _, feeds in draw_feeds(specs, self.sizes[-1], 0, DRAWN)], False

    def _same_graph(self, options: Options, proved: Iterable[Optimized]) -> Optimized | None:
        """The one of `proved` with the graph that `options` lead to, or None.

        Rewriting without a proof and comparing takes less time than proving again.
        """
        from flatfold.proof import fingerprint

        proved = list(proved)
        if not proved or options.simplify or options.precision != FULL:
            return None
        self.progress("rewriting")
        graph, _, _ = self.rewrite(options)
        digest = fingerprint(graph)
        return next((result for result in proved if fingerprint(result.graph) == digest), None)

    def _rewrite_and_prove(self, options: Options) -> Optimized:
        from flatfold.proof import Equivalence, RegionChecks
        from flatfold.sources import is_same, reference_of

        self.progress("rewriting")
        original, checks = self.source.model, None
        if options.verify in ("bound", "certify"):
            checks = RegionChecks(certifying=options.verify == "certify")
        graph, training, remarks = self.rewrite(options, checks)
        if options.simplify:
            from flatfold.frontend.loading.onnxsim import simplify

            self.progress("simplifying")
            graph, checks = simplify(graph), None  # what onnxsim does is sampled, not bounded
        result = Optimized(
            self.source.name,
            graph,
            original,
            training,
            tuple(remarks),
            Equivalence("unknown", reason="verification is off"),
            reference=lambda: reference_of(self.source),
        )
        if options.verify == "off":
            return result
        if not any(remark.applied for remark in remarks) and is_same(original, graph):
            same = Equivalence("identical", reason="the two graphs have the same bytes")
            return replace(result, equivalence=same)
        return self.prove(result, checks)

    def canonicalize(self) -> ir.Model:
        """The training form: a copy of the graph without what the exporter left in it."""
        from flatfold.frontend import canonicalize

        graph = self.source.model.clone()
        canonicalize(graph)
        return graph

    def rewrite(
        self, options: Options, check: Check | None = None
    ) -> tuple[ir.Model, ir.Model, Sequence[Remark]]:
        """The rewritten graph, the training form it was made from, and the remarks.

        `check` sees every change before it is made. Raises InputError where the graph cannot be
        run at all, and otherwise what a rewrite raises.
        """
        from flatfold.passes import EqualizeChannels, Pipeline
        from flatfold.passes.remark import taken_back
        from flatfold.proof import compare

        variant = options.variant
        try:
            graph = self.canonicalize()
            training = graph.clone()
            if variant.given:
                return self.source.model.clone(), training, [taken_back(graph.graph.name or "")]
            pipeline = Pipeline(
                options.rewrites(),
                options.profile(),
                check,
                _no_kernel(),
                variant.taken_back,
                keeps_exact=options.precision != FULL,
            )
            remarks = _rewritten(graph, pipeline)
            if options.precision != FULL:
                remarks += Pipeline([EqualizeChannels()], options.profile(), check).run(graph)
            remarks += [taken_back(graph.graph.name or "", n) for n in sorted(variant.without)]
            return graph, training, remarks
        except Exception as error:
            if isinstance(error, PassError) or not isinstance(error, FlatfoldError):
                # An invalid graph may break every promise: then that is the error to report.
                compare(self.source.model, self.source.model)
            raise

    def prove(self, result: Optimized, checks: RegionChecks | None = None) -> Optimized:
        """`result` with the verdict on its graph; `checks` are those of its changes, if any.

        Runs the original and the rewritten graph on the same inputs. Raises NotEquivalent where
        the outputs differ by more than rounding explains.
        """
        from flatfold.proof import compare

        self.progress("proving")
        equivalence = compare(
            result.original,
            result.graph,
            reference=result.reference(),
            sizes=self.sizes,
            checked=checks is not None,
            before=self.run_original,
            macs=result.before.macs or 0,
            progress=lambda label: self.progress(f"proving on {label}"),
        )
        if equivalence.verdict == "refuted":
            raise NotEquivalent(str(equivalence), where=f"input {equivalence.worst_input}")
        if checks is None:
            return replace(result, equivalence=equivalence)
        if checks.regions > 0 and equivalence.verdict != "unknown":
            equivalence = _with_regions(equivalence, checks)
        return replace(result, equivalence=equivalence, changes=tuple(checks.entries))

    def build(self, result: Optimized, options: Options) -> Engine:
        """An engine for the graph of `result`, checked by running it if the graph was proved.

        Where the options ask for less precision than the graph has, an engine of full precision is
        checked first: a difference there is no rounding. Raises TargetUnavailable, BuildError, and
        Inaccurate where an engine computes something else.
        """
        backend, record = _backend(options.target), result.record()
        chosen = options.engine_options
        if options.precision.kind not in backend.precisions:
            raise _unavailable([backend.name], options.precision.kind)
        exact = {**chosen, **backend.exact_options}
        if result.equivalence.passed and any(chosen.get(n, v) != v for n, v in exact.items()):
            with self._build(backend, result, exact) as engine:
                record["strict_engine_equivalence"] = self.check(result, engine).to_dict()
        engine = self._build(backend, result, chosen)
        if options.precision != FULL:
            _require_precision(engine, result, options.precision)
        engine.manifest.update(record)
        certificate = result.certificate()
        engine.certificate = certificate.to_dict() if certificate is not None else None
        if result.equivalence.passed:
            try:
                engine.manifest["engine_equivalence"] = self.check(result, engine).to_dict()
            except BaseException:
                engine.close()
                raise
        return engine

    def _build(self, backend: Backend, result: Optimized, options: Mapping[str, object]) -> Engine:
        self.progress(f"building for {backend.name}")
        try:
            return backend.build(result.graph, options, self.progress)
        except BuildError as error:
            empty = _empty_value(result.graph)
            if empty is None:
                raise
            raise InputError(
                f"value {empty.name!r} has no elements, of shape {empty.shape}, and the target "
                f"takes none: {error.cause}",
                where=error.where,
                hint="export the model with sizes of 1 or more",
            ) from error

    def check(self, result: Optimized, engine: Engine) -> Equivalence:
        """How the engine's own outputs compare with the original. Raises Inaccurate.

        Those of an engine in 8 bits are compared with the graph in 8 bits.
        """
        from flatfold.proof import check_engine

        if result.rounded is not None and result.rounded.precision in IN_CODES:
            from flatfold.quantizing.engine_check import check_codes

            self.progress("running the engine on the data given")
            return check_codes(engine, result.graph, self.calibration[0])
        equivalence = check_engine(
            engine.run,
            engine.precision,
            result.original,
            result.graph,
            reference=result.reference(),
            sizes=self.sizes,
            before=self.run_original,
            progress=lambda label: self.progress(f"running the engine on {label}"),
        )
        if equivalence.verdict == "refuted":
            raise Inaccurate(
                f"target {engine.target} is less accurate than {engine.precision} allows, while "
                f"the graph it runs is {result.equivalence.verdict}: {equivalence}",
                where=f"input {equivalence.worst_input}",
                hint="another target, or stricter options of this one",
            )
        return equivalence

    def compile(
        self,
        choices: Sequence[Options],
        *,
        auto: bool = False,
        cache_dir: str | os.PathLike[str] | None = None,
    ) -> Compiled:
        """The engine of the target in `choices`, or with `auto` the fastest of several.

        The same choices for the same model come from the cache of engines; see `engine_cache`.
        """
        from flatfold import engine_cache

        def key() -> str:
            keys = [
                engine_cache.key_of(self.source, _backend(options.target), self._key(options))
                for options in choices
            ]
            return engine_cache.joined(keys)

        with engine_cache.slot(cache_dir, key, self.progress) as slot:
            if (cached := slot.engine) is not None:
                return Compiled(cached, True, lambda: self._recorded(cached))
            engine = self._fastest(choices) if auto else self._engine(choices[0])
            slot.store(engine)
        (options,) = (options for options in choices if options.target == engine.target)
        return Compiled(engine, False, lambda: self.optimize(self._with_variant(options)))

    def _key(self, options: Options) -> dict[str, object]:
        """Everything but the model and the target that decides which engine is built."""
        from flatfold.calibration import digest

        if options.precision == FULL or self._calibration is None:
            return options.cache_key()
        return {**options.cache_key(), "calibration": digest(self.calibration[0])}

    def _engine(self, options: Options) -> Engine:
        """The engine of the variant that `options.tune` leads to; its manifest says which."""
        if options.target not in self._tuned:
            self._tuned[options.target] = self._tune(options)
        options = self._with_variant(options)
        engine = self.build(self.optimize(options), options)
        engine.manifest["tuning"] = self._tuned[options.target].to_dict()
        return engine

    def _with_variant(self, options: Options) -> Options:
        variant = self._tuned[options.target].variant
        chosen = {**options.engine_options, **dict(variant.engine_options)}
        return replace(options, variant=variant, engine_options=chosen)

    def _tune(self, options: Options) -> Tuned:
        """Which variant to build, by time, as far as `options.tune` asks and this machine can."""
        from flatfold.sources import is_same
        from flatfold.tuning import Candidate, Stopwatch, Tuner

        if options.tune == 0:
            return Tuned()
        backend = _backend(options.target)
        result = self.optimize(options)
        full = result.float_graph  # None where the result itself is in float32
        if full is None and options.tune is None and is_same(self.source.model, result.graph):
            return Tuned()
        if not (state := backend.availability()).runs:
            return Tuned(reason=f"not timed: {state.reason}")

        def write(variant: Variant) -> tuple[ir.Model, Sequence[Remark]]:
            graph, _, remarks = self.rewrite(replace(options, variant=variant))
            return graph, remarks

        try:
            tuner = Tuner(
                write,
                Stopwatch(backend, options.engine_options, self.feeds()).times,
                self.source.model if full is None else full,
                {n: v for n, v in backend.choices().items() if n not in options.engine_options},
                self.progress,
            )
            estimated = Candidate(ESTIMATED, "", result.graph, result.remarks)
            if full is not None:
                return tuner.beside(estimated, options.precision.kind)
            if options.tune is None:
                return tuner.check(estimated)
            return tuner.search(estimated, options.tune)
        except FlatfoldError as error:
            return Tuned(reason=f"not timed: {error.cause}")

    def feeds(self) -> dict[str, Any]:
        """Inputs to time engines with: of the sizes asked for, else of images where those fit."""
        from flatfold.proof.network.inputs import draw_feeds, input_specs

        specs, shapes = input_specs(self.source.model), self.sizes[-1]
        larger = dict(shapes)
        for spec in specs:
            given, shape = self.source.shapes.get(spec.name, spec.shape), shapes[spec.name]
            if len(given) == 4 and not any(isinstance(size, int) for size in given[2:]):
                larger[spec.name] = (*shape[:2], *IMAGE)
        for sizes in (larger, shapes):
            ((_, feeds),) = draw_feeds(specs, sizes, 0, ("normal",))
            try:
                self.run_original(feeds)
            except FlatfoldError:
                continue
            break
        return feeds

    def _fastest(self, choices: Sequence[Options]) -> Engine:
        """The fastest engine; its manifest says what it was compared with."""
        from flatfold.auto_target import AutoTarget, choose
        from flatfold.backends import load_backend

        by_target = {options.target: options for options in choices}
        backends = {target: load_backend(target) for target in by_target}

        def engine_to_time(target: str) -> Engine:
            options, backend = by_target[target], backends[target]
            timed = {**options.engine_options, **backend.timing_options}
            return self._engine(replace(options, engine_options=timed))

        if len(choices) == 1:
            (target,) = by_target
            choice = AutoTarget(target, "it is the only target that runs here")
            engine = self._engine(choices[0])
        else:
            packages = {target: len(backend.needs) for target, backend in backends.items()}
            choice, engine = choose(
                list(by_target), engine_to_time, packages, self.progress, lambda: self.sizes[-1]
            )
            if backends[choice.target].timing_options:  # it was built for timing, not for use
                engine.close()
                engine = self._engine(by_target[choice.target])
        engine.manifest[AUTO] = choice.to_dict()
        return engine

    def _recorded(self, engine: Engine) -> Optimized:
        """The result that an engine from the cache was built from, read from its manifest."""
        graphs = self.source.model, self.canonicalize(), engine.model
        return Optimized.from_record(engine.manifest, engine.certificate, *graphs)


def _rewritten(graph: ir.Model, pipeline: Pipeline) -> list[Remark]:
    """Rewrite `graph` in place until a clean-up leaves nothing to do; the remarks.

    A rewrite may leave behind what canonicalization removes: what two of them write twice, or the
    two views that stood around a norm.
    """
    from flatfold.frontend import canonicalize

    applied: list[Remark] = []
    missed: list[Remark] = []
    for _ in range(MOST_ROUNDS):
        remarks = pipeline.run(graph)
        applied += [remark for remark in remarks if remark.applied]
        missed = [remark for remark in remarks if not remark.applied]
        before = _node_count(graph)
        canonicalize(graph)
        if len(missed) == len(remarks) or _node_count(graph) == before:
            break
    return applied + missed


def _node_count(model: ir.Model) -> int:
    return sum(graph.num_nodes() for graph in model.graphs())


def _no_kernel() -> set[tuple[str, ir.DataType]]:
    """Operators with types that ONNX Runtime, on which every graph is proved, cannot run."""
    import onnx_ir as ir

    return {(name, ir.DataType.DOUBLE) for name in ("Conv", "ConvTranspose")}


def _with_regions(equivalence: Equivalence, checks: RegionChecks) -> Equivalence:
    """The verdict on the whole graph, raised by what was proved of each change."""
    certified = checks.certified == checks.regions
    return replace(
        equivalence,
        verdict="certified" if certified else "bounded",
        regions=checks.regions,
        certified=checks.certified,
        region_ratio=checks.worst,
        doubts=tuple(checks.doubts),
    )


def _empty_value(model: ir.Model) -> ir.Value | None:
    """An input or computed value of `model` with an axis of size 0, or None."""
    computed = (value for node in model.graph for value in node.outputs)
    values = (*model.graph.inputs, *computed)
    return next((value for value in values if value.shape and 0 in value.shape.dims), None)


def _require_precision(engine: Engine, result: Optimized, asked: Precision) -> None:
    """Raise PrecisionUnavailable where an engine computes in another precision than its graph, and
    Degraded where its graph loses more than is allowed."""
    found, rounded = engine.precision, result.rounded
    precision = "int8" if asked.in_codes else asked.kind
    if rounded is not None and rounded.verdict == "degraded":
        engine.close()
        raise Degraded(
            f"the graph in {asked.kind} is {rounded}",
            hint="precision='mixed' with max_drop, keep_float for the layers that `flatfold "
            "explain` says lose most, or more calibration data",
        )
    if precision in found.split("+"):
        return
    if asked.kind == "mixed" and rounded is not None and not rounded.nodes:
        return  # nothing else was good enough, which the result says
    engine.close()
    if rounded is not None and not rounded.nodes:
        why = next((r.reason for r in reversed(result.remarks) if not r.applied), "")
        raise PrecisionUnavailable(
            f"no node can compute in {precision}: {why}", hint="leave the precision out"
        )
    raise PrecisionUnavailable(
        f"the engine of {engine.target} computes in {found}, not in {precision}",
        where=f"target {engine.target}",
        hint="another target or another processor, or precision='fp32'",
    )


def _backend(target: str) -> Backend:
    """The backend of `target`; "auto" is the most preferred one. Raises TargetUnavailable."""
    from flatfold.backends import best_target, load_backend

    backend = load_backend(best_target() if target == AUTO else target)
    backend.require()
    return backend
