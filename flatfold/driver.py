"""From a model to an engine: export, canonicalise, rewrite, prove, build. Reads top to bottom."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from flatfold.errors import Inaccurate, NotEquivalent, UnknownName
from flatfold.result import Optimized

if TYPE_CHECKING:
    from torch import nn

    from flatfold.backends.base import Backend, Engine
    from flatfold.proof.equivalence import Equivalence

VERIFY = ("off", "sample", "bound", "certify")
Progress = Callable[[str], None]


def _silent(_: str) -> None:
    """Progress that nobody wants to see."""


def optimize(
    model: Any,
    *,
    name: str = "",
    input_shape: Sequence[int] | None = None,
    example_inputs: Any = None,
    dynamic_batch: bool = False,
    weights: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    target: str = "default",
    passes: Iterable[str] | None = None,
    verify: str = "certify",
    simplify: bool = False,
    max_weights: float | None = None,
    links_inside: str | os.PathLike[str] | None = None,
    progress: Progress = _silent,
) -> Optimized:
    """Rewrite a model's graph into the cheapest form that computes the same function.

    `model` is an nn.Module, a zoo name, "timm:NAME", "package.module:factory", the path of an
    .onnx file, an onnx.ModelProto or an onnx_ir.Model; it is never modified. What is cheap is
    judged for `target`, which need not be available here. `passes` names the rewrites to use
    (default all). `verify`: "off"; "sample" runs both graphs against a float64
    reference; "bound" also checks each change against its rounding bound before it is made,
    and "certify" besides that its algebra is exact, in a prime field.
    `simplify` runs onnxsim afterwards, under the same proof. A file may have `max_weights` GiB of
    weights (default 16), and keep them behind symbolic links to files below `links_inside`, such
    as a hub's cache. Raises NotEquivalent rather than return a graph that differs.
    """
    from flatfold.passes import Pipeline
    from flatfold.proof.region import RegionChecks
    from flatfold.resolve import is_same, reference_of, resolve
    from flatfold.rewriting import profile_of, rewrites_of, rewritten

    rewrites, profile = rewrites_of(passes), profile_of(target)
    if verify not in VERIFY:
        raise UnknownName("verification", verify, VERIFY)
    progress("exporting")
    source = resolve(
        model,
        name=name,
        input_shape=input_shape,
        example_inputs=example_inputs,
        dynamic_batch=dynamic_batch,
        weights=weights,
        max_weights=max_weights,
        links_inside=links_inside,
    )
    progress("rewriting")
    checks = RegionChecks(certifying=verify == "certify") if verify in VERIFY[2:] else None
    graph, training, remarks = rewritten(source.model, Pipeline(rewrites, profile, checks))
    if simplify:
        from flatfold.frontend.simplify import simplify as clean

        progress("simplifying")
        graph, checks = clean(graph), None  # what onnxsim does is sampled, not bounded
    result = Optimized(
        source.name,
        graph,
        source.model,
        training,
        tuple(remarks),
        _unknown(),
        reference=lambda: reference_of(source),
    )
    if verify == "off":
        return result
    if not any(remark.applied for remark in remarks) and is_same(source.model, graph):
        return replace(result, equivalence=_identical())
    return _proved(result, checks, progress)


def _unknown() -> Equivalence:
    from flatfold.proof.equivalence import Equivalence

    return Equivalence("unknown", reason="verification is off")


def _identical() -> Equivalence:
    from flatfold.proof.equivalence import Equivalence

    return Equivalence("identical", reason="the two graphs have the same bytes")


def _proved(result: Optimized, checks: Any, progress: Progress) -> Optimized:
    from flatfold.proof.execute import compare

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
            reason="less exact than the original" if less else found.reason,
        )
    return replace(
        result, equivalence=found, changes=tuple(checks.entries) if checks is not None else None
    )


def compile(
    model: Any,
    target: str = "auto",
    *,
    engine_options: Mapping[str, object] | None = None,
    **options: Any,
) -> Engine:
    """Optimize a model and build an engine for `target`; "auto" takes the best one present.

    `options` are those of `optimize`, `engine_options` those of the target, whose costs decide what
    is rewritten. The engine's manifest
    holds the proof, the remarks, the counts, and how its own outputs compare. Raises what
    `optimize` and `build` raise.
    """
    backend = backend_for(target)
    result = optimize(model, target=backend.name, **options)
    return build(result, backend.name, engine_options, options.get("progress", _silent))


def build(
    result: Optimized,
    target: str = "auto",
    engine_options: Mapping[str, object] | None = None,
    progress: Progress = _silent,
) -> Engine:
    """An engine for a graph that has been optimized already; if that was proved, it is run, too.

    Raises TargetUnavailable, BuildError, and Inaccurate where the engine computes something else.
    """
    backend = backend_for(target)
    progress(f"building for {backend.name}")
    engine = backend.build(result.graph, engine_options or {}, progress)
    engine.manifest.update(result.record())
    proved = result.certificate()
    engine.certificate = proved.to_dict() if proved is not None else None
    if result.equivalence.passed:
        try:
            engine.manifest["engine_equivalence"] = _checked(result, engine, progress).to_dict()
        except BaseException:
            engine.close()
            raise
    return engine


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
    from flatfold.errors import TargetUnavailable

    backend = load_backend(best_target() if target == "auto" else target)
    state = backend.availability()
    if not state.available:
        raise TargetUnavailable(f"target {target}: {state.reason}", hint=state.hint)
    return backend


def load(folder: str | os.PathLike[str]) -> Engine:
    """The engine saved in `folder`, after checking every file against the manifest."""
    from pathlib import Path

    from flatfold.backends import bundle

    return bundle.load(Path(folder))


def create_model(name: str, **options: Any) -> nn.Module:
    """A model of the zoo in its training form, in eval mode, with seeded weights."""
    from flatfold.models import create_model as create

    return create(name, **options)


def list_models(pattern: str = "*") -> list[str]:
    """Names in the zoo that match a shell pattern."""
    from flatfold.models import list_models as names

    return names(pattern)
