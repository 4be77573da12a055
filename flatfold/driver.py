"""From a model to an engine: export, canonicalise, rewrite, prove, build. Reads top to bottom."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from flatfold.building import backend_for, build
from flatfold.compiling import compiled, targets_of
from flatfold.optimizing import Progress, optimized, silent
from flatfold.result import Optimized
from flatfold.rewriting import Choice

if TYPE_CHECKING:
    from torch import nn

    from flatfold.backends.base import Engine

__all__ = [
    "backend_for",
    "build",
    "compile",
    "compiled",
    "create_model",
    "list_models",
    "load",
    "optimize",
    "targets_of",
]


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
    progress: Progress = silent,
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

    choice = Choice.of(target, passes, verify, simplify)
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
    return optimized(source, choice, progress)


def compile(
    model: Any,
    target: str = "auto",
    *,
    engine_options: Mapping[str, object] | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    **options: Any,
) -> Engine:
    """Optimize a model and build an engine for `target`; "auto" takes the fastest that runs here.

    `options` are those of `optimize`, `engine_options` those of the target, whose costs decide what
    is rewritten. The engine's manifest holds the proof, the remarks, the counts, and how its own
    outputs compare. An engine that was built before from the same model and options comes from the
    cache of engines: `cache_dir`, by default $FLATFOLD_CACHE or the user's own cache folder; "" for
    none. Raises what `optimize` and `build` raise.
    """
    made = compiled(model, target, engine_options=engine_options, cache_dir=cache_dir, **options)
    return made.engine


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
