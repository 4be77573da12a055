"""From a model to an engine: export, canonicalise, rewrite, prove, build. Reads top to bottom."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from flatfold.result import Optimized
from flatfold.rewriting import VERIFY, Choice

if TYPE_CHECKING:
    from torch import nn

    from flatfold.backends.base import Backend, Engine
    from flatfold.frontend.source import Source

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
    from flatfold.resolve import resolve

    choice = Choice(target, _names(passes), verify, simplify)
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
    return _optimized(source, choice, progress)


def _names(passes: Iterable[str] | None) -> tuple[str, ...] | None:
    return None if passes is None else tuple(passes)


def _optimized(source: Source, choice: Choice, progress: Progress) -> Optimized:
    from flatfold.passes import Pipeline
    from flatfold.proof.region import RegionChecks
    from flatfold.proving import identical, proved, unknown
    from flatfold.resolve import is_same
    from flatfold.rewriting import profile_of, rewritten

    progress("rewriting")
    verify = choice.verify
    checks = RegionChecks(certifying=verify == "certify") if verify in VERIFY[2:] else None
    pipeline = Pipeline(choice.rewrites(), profile_of(choice.target), checks)
    graph, training, remarks = rewritten(source.model, pipeline)
    if choice.simplify:
        from flatfold.frontend.simplify import simplify as clean

        progress("simplifying")
        graph, checks = clean(graph), None  # what onnxsim does is sampled, not bounded
    result = Optimized(source.name, graph, source.model, training, tuple(remarks), unknown())
    if verify == "off":
        return result
    if not any(remark.applied for remark in remarks) and is_same(source.model, graph):
        return replace(result, equivalence=identical())
    return proved(result, source, checks, progress)


def compile(
    model: Any,
    target: str = "auto",
    *,
    engine_options: Mapping[str, object] | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    **options: Any,
) -> Engine:
    """Optimize a model and build an engine for `target`; "auto" takes the best one present.

    `options` are those of `optimize`, `engine_options` those of the target, whose costs decide what
    is rewritten. The engine's manifest holds the proof, the remarks and the counts. An engine that
    was built before from the same model and options comes from the cache of engines: `cache_dir`,
    by default $FLATFOLD_CACHE or the user's own cache folder; "" for none. Raises what `optimize`
    raises, and TargetUnavailable or BuildError.
    """
    made = compiled(model, target, engine_options=engine_options, cache_dir=cache_dir, **options)
    return made.engine


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
        from flatfold.rewriting import training_form

        if self.made is not None:
            return self.made
        original, engine = self.source.model, self.engine
        graphs = original, training_form(original), engine.model
        return Optimized.from_record(engine.manifest, engine.certificate, *graphs)


def compiled(
    model: Any,
    target: str = "auto",
    *,
    engine_options: Mapping[str, object] | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    passes: Iterable[str] | None = None,
    verify: str = "certify",
    simplify: bool = False,
    progress: Progress = _silent,
    **reading: Any,
) -> Compiled:
    """`compile`, with what there is to say about the engine."""
    from flatfold.caching import through_cache
    from flatfold.keys import key_of
    from flatfold.resolve import resolve

    backend, settings = backend_for(target), engine_options or {}
    choice = Choice(backend.name, _names(passes), verify, simplify)
    progress("exporting")
    source = resolve(model, **reading)
    made: list[Optimized] = []

    def make() -> Engine:
        made.append(_optimized(source, choice, progress))
        return build(made[0], backend.name, settings, progress)

    def key() -> str:
        return key_of(source, choice, backend, settings)

    engine, cached = through_cache(cache_dir, key, make, progress)
    return Compiled(engine, source, None if cached else made[0])


def build(
    result: Optimized,
    target: str = "auto",
    engine_options: Mapping[str, object] | None = None,
    progress: Progress = _silent,
) -> Engine:
    """An engine for a graph that has been optimized already."""
    backend = backend_for(target)
    progress(f"building for {backend.name}")
    engine = backend.build(result.graph, engine_options or {})
    engine.manifest.update(result.record())
    proved = result.certificate()
    engine.certificate = proved.to_dict() if proved is not None else None
    return engine


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
