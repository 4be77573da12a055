"""From a model to an engine: export, canonicalize, rewrite, prove, build. Reads top to bottom."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flatfold.compiler import (
    Choice,
    compiled,
    optimized,
)
from flatfold.errors import UnknownName
from flatfold.result import Optimized
from flatfold.system.progress import Progress, silent

if TYPE_CHECKING:
    import onnx_ir as ir
    from torch import nn

    from flatfold.backends.base import Engine
    from flatfold.proof.equivalence import Equivalence
    from flatfold.proof.reduction.reduce import Reduced


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
    from flatfold.sources import resolve

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

    from flatfold.backends.store import bundle

    return bundle.load(Path(folder))


def create_model(name: str, **options: Any) -> nn.Module:
    """A model of the zoo in its training form, in eval mode, with seeded weights."""
    from flatfold.models import create_model as create

    return create(name, **options)


def list_models(pattern: str = "*") -> list[str]:
    """Names in the zoo that match a shell pattern."""
    from flatfold.models import list_models as names

    return names(pattern)


VERIFY = ("sample", "bound")


def verify(
    model_a: Any,
    model_b: Any,
    *,
    verify: str = "bound",
    certificate: Mapping[str, Any] | None = None,
    progress: Progress = silent,
    **options: Any,
) -> Equivalence:
    """Whether two models with the same inputs and outputs compute the same function.

    Runs both on random, constant, impulse and border inputs against model_a in float64. `verify`:
    "sample" stops there; "bound" also compares them part by part, whichever tool rewrote the
    second: operators that are the same, and regions that agree within rounding. The verdict is
    `identical`, `bounded`, `sampled`, `refuted` (then `faults` name the region and the weight) or
    `unknown`. A difference is a verdict, not an exception. `options` are those of `optimize` that
    say how to export a module, and an ONNX model beside one has its own; or how to read files.
    `certificate`: of the rewriting of A to B; raises InputError unless it is about these two.
    """
    from flatfold.proof.cut_points.verify import part_by_part
    from flatfold.proof.equivalence import Equivalence
    from flatfold.proof.network.run import compare
    from flatfold.result import summarise
    from flatfold.sources import is_same, reference_of, resolve_both

    if verify not in VERIFY:
        raise UnknownName("verification", verify, VERIFY)
    a, b = resolve_both(model_a, model_b, **options)
    told = _certified(certificate, a.model, b.model) if certificate is not None else ""
    if is_same(a.model, b.model):
        reason = "the two graphs have the same bytes"
        return Equivalence("identical", reason="; ".join(text for text in (reason, told) if text))
    macs = summarise(a.model).macs or 0
    found = compare(
        a.model,
        b.model,
        reference=reference_of(a),
        macs=macs,
        progress=lambda label: progress(f"running on {label}"),
    )
    if verify == "bound":
        found = part_by_part(a.model, b.model, found, progress)
    return replace(found, reason="; ".join(text for text in (found.reason, told) if text))


def _certified(content: Mapping[str, Any], a: ir.Model, b: ir.Model) -> str:
    """What a certificate says of these two. Raises InputError if it is about others."""
    from flatfold.frontend.canonicalization.canonicalize import canonicalize
    from flatfold.proof.certificate import Certificate, require_about

    found, original = Certificate.from_dict(content), a.clone()
    canonicalize(original)
    require_about(found, original, b)
    exact = sum(entry.certified for entry in found.changes)
    return (
        f"the certificate accounts for every new node: {len(found.changes)} changes,"
        f" {exact} exact by their algebra when they were made"
    )


def reduce(
    model_a: Any,
    model_b: Any,
    folder: str | os.PathLike[str] = "build/reduced",
    *,
    progress: Progress = silent,
    **options: Any,
) -> Reduced:
    """The smallest part in which two models differ, as two small models in `folder`.

    The first region that `verify` refutes, with the values it reads as inputs, without the terms
    and at the smallest size that leave the same weight wrong. Nothing is written where the two
    agree. `options` as for `verify`. Raises Inconclusive where neither can be said.
    """
    from flatfold.proof.reduction.reduce import reduce_pair
    from flatfold.sources import resolve_both

    a, b = resolve_both(model_a, model_b, **options)
    return reduce_pair(a.model, b.model, Path(folder), progress)
