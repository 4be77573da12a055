"""The public functions: compile, optimize, verify, reduce, load, create_model, list_models."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flatfold.compiler import AUTO, Compiler, Options, targets_of
from flatfold.errors import InputError, UnknownName
from flatfold.precision import Precision
from flatfold.result import Optimized
from flatfold.system.progress import Progress, silent

if TYPE_CHECKING:
    from torch import nn

    from flatfold.backends import Engine
    from flatfold.proof import Equivalence, Reduced


def compile(
    model: Any,
    target: str = AUTO,
    *,
    engine_options: Mapping[str, object] | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    passes: Iterable[str] | None = None,
    verify: str = "certify",
    simplify: bool = False,
    tune: float | None = None,
    precision: str = "fp32",
    keep_float: Iterable[str] = (),
    narrow_io: bool = False,
    calibration: Any = None,
    accuracy: Callable[[Any], float] | None = None,
    max_drop: float | None = None,
    progress: Progress = silent,
    **reading: Any,
) -> Engine:
    """Optimize a model and build an engine for `target`; "auto" takes the fastest that runs here.

    `engine_options` are those of the target; the others, `reading` included, are those of
    `optimize`, with the costs of the target. The engine's manifest holds the proof, the remarks,
    the counts, and how the engine's own outputs compare. No engine is slower than the model as it
    came: both are timed, and changes are taken back where they have to be, which the manifest says
    under "tuning". A `precision` that was asked for stays, and there it says if fp32 is faster.
    `tune`: seconds to search for a faster engine by time; 0 times nothing. An engine that was built
    before from the same model and options comes from the cache of engines: `cache_dir`, by default
    $FLATFOLD_CACHE or the user's own cache folder; "" for none. Raises what
    `optimize` raises, TargetUnavailable, PrecisionUnavailable where the target does not compute in
    `precision`, BuildError, Inaccurate where an engine computes something else than its graph, and
    Degraded where a graph in 8 bits loses more than `max_drop`, or a tenth of the signal.
    """
    typed = Precision(precision, tuple(keep_float), narrow_io, max_drop=max_drop, accuracy=accuracy)
    typed.require(calibration)
    targets = targets_of(target, precision)
    if engine_options and len(targets) > 1:
        raise InputError(
            f"options of an engine are those of one target, and {' and '.join(targets)} run here",
            hint=f"name one of them as the target, such as {targets[0]!r}",
        )
    names = None if passes is None else tuple(passes)
    choices = [
        Options(name, names, verify, simplify, engine_options or {}, tune, typed)
        for name in targets
    ]
    compiler = Compiler.resolve(model, progress, calibration, **reading)
    cache = cache_dir if accuracy is None else ""  # a function has no content to tell it by
    return compiler.compile(choices, auto=target == AUTO, cache_dir=cache).engine


def optimize(
    model: Any,
    *,
    name: str = "",
    input_shape: Sequence[int] | Mapping[str, Sequence[int]] | None = None,
    example_inputs: Any = None,
    dynamic_batch: bool = False,
    weights: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    target: str = "default",
    passes: Iterable[str] | None = None,
    verify: str = "certify",
    simplify: bool = False,
    precision: str = "fp32",
    keep_float: Iterable[str] = (),
    narrow_io: bool = False,
    calibration: Any = None,
    accuracy: Callable[[Any], float] | None = None,
    max_drop: float | None = None,
    max_weights: float | None = None,
    links_inside: str | os.PathLike[str] | None = None,
    constant_defaults: bool | None = None,
    progress: Progress = silent,
) -> Optimized:
    """Rewrite a model's graph into the cheapest form that computes the same function.

    `model` is an nn.Module, a zoo name, "timm:NAME", "package.module:factory", the path of an
    .onnx file, an onnx.ModelProto or an onnx_ir.Model; it is never modified. `input_shape` is
    (C, H, W), a whole shape, or a shape for each input by name; `example_inputs` are arrays or
    tensors with such shapes. A module is exported for these sizes; a graph, whose open axes stay
    open, is run at them, and without them at likely ones that it takes. Costs are those of
    `target`, which need not be available here. `passes` names the rewrites to use (default all).
    `verify`: "off"; "sample" runs both graphs against a float64 reference; "bound" also checks
    each change against its rounding bound before it is made; "certify" also proves that its
    algebra is exact, in a prime field. `simplify` runs onnxsim afterwards, under the same proof.
    `precision`: "fp32", "fp16", "bf16", "int8" or "mixed". The graph is rewritten and proved in
    float32 first; then its values and weights get this type, with Casts where types meet, but for
    the nodes that `keep_float` names (names, patterns or operators), those that have no such type,
    and those whose values leave its range or lose too much, as seen on `calibration`: an array,
    arrays by name of the input, an iterable of those, an .npz file or a folder of images (see
    `Images`); random data without it. Inputs and outputs keep float32 unless `narrow_io` is set.
    What the roundings change is measured on the same data. "int8" stores values and weights as
    codes of 8 bits, in the form that the engine of `target` runs on codes, and needs `calibration`,
    a quarter of which is held out; the word "random" will do to see how fast it is. "mixed" keeps
    as many layers in float32 as it takes to lose no more than `max_drop` (0.005): of `accuracy`, a
    function that is given a function from arrays by name to a list of outputs; without one, of the
    share of inputs with the same largest score.
    A file may have `max_weights` GiB of weights (default 16), and keep them behind symbolic links
    to files below `links_inside`, such as a hub's cache. `constant_defaults`: weights that are
    inputs with a default value, as older exporters write them, become constants, which lets them be
    folded and no caller set them. Raises InputError for a model that cannot be used,
    CalibrationMissing, and NotEquivalent rather than return a graph that differs.
    """
    typed = Precision(precision, tuple(keep_float), narrow_io, max_drop=max_drop, accuracy=accuracy)
    typed.require(calibration)
    options = Options(target, passes, verify, simplify, precision=typed)
    compiler = Compiler.resolve(
        model,
        progress,
        calibration,
        name=name,
        input_shape=input_shape,
        example_inputs=example_inputs,
        dynamic_batch=dynamic_batch,
        weights=weights,
        max_weights=max_weights,
        links_inside=links_inside,
        constant_defaults=constant_defaults,
    )
    return compiler.optimize(options)


VERIFY = ("sample", "bound")


def verify(
    model_a: Any,
    model_b: Any,
    *,
    verify: str = "bound",
    certificate: Mapping[str, Any] | None = None,
    progress: Progress = silent,
    **reading: Any,
) -> Equivalence:
    """Whether two models with the same inputs and outputs compute the same function.

    Inputs and outputs that are called otherwise are paired by their order, if types and shapes fit.

    Runs both on random, constant, impulse and border inputs against model_a in float64. `verify`:
    "sample" stops there; "bound" also compares them part by part, whichever tool rewrote the
    second: operators that are the same, and regions that agree within rounding. The verdict is
    `identical`, `bounded`, `sampled`, `refuted` (then `faults` name the region and the weight) or
    `unknown`. A difference is a verdict, not an exception. `reading` are the options of `optimize`
    that say how to export a module (an ONNX model next to one keeps its own shapes) or how to read
    files. `certificate`: of the rewriting of A to B; raises InputError unless it is about these
    two.
    """
    from flatfold.proof import Equivalence, compare, verify_parts
    from flatfold.result import summarise
    from flatfold.sources import is_same, reference_of, resolve_both, sizes_to_compare_at

    if verify not in VERIFY:
        raise UnknownName("verification", verify, VERIFY)
    a, b, remark = resolve_both(model_a, model_b, **reading)
    reasons = [remark] if remark else []
    reasons += [] if certificate is None else [_certified(certificate, Compiler(a), Compiler(b))]
    if is_same(a.model, b.model):
        reasons.insert(0, "the two graphs have the same bytes")
        return Equivalence("identical", reason="; ".join(reasons))
    sizes = sizes_to_compare_at(a, b)
    equivalence = compare(
        a.model,
        b.model,
        sizes=sizes,
        reference=reference_of(a),
        macs=summarise(a.model).macs or 0,
        progress=lambda label: progress(f"running on {label}"),
    )
    if verify == "bound":
        equivalence = verify_parts(a.model, b.model, equivalence, progress, sizes)
    if equivalence.reason:
        reasons.insert(0, equivalence.reason)
    return replace(equivalence, reason="; ".join(reasons))


def _certified(content: Mapping[str, Any], a: Compiler, b: Compiler) -> str:
    """What a certificate says about these two. Raises InputError if it is about others."""
    from flatfold.proof import Certificate, require_about

    certificate = Certificate.from_dict(content)
    require_about(certificate, a.canonicalize(), b.source.model)
    exact = sum(entry.certified for entry in certificate.changes)
    return (
        f"the certificate accounts for every new node: {len(certificate.changes)} changes,"
        f" {exact} exact by their algebra when they were made"
    )


def reduce(
    model_a: Any,
    model_b: Any,
    folder: str | os.PathLike[str] = "build/reduced",
    *,
    progress: Progress = silent,
    **reading: Any,
) -> Reduced:
    """The smallest part in which two models differ, as two small models in `folder`.

    The first region that `verify` refutes, with the values it reads as inputs, reduced to the
    fewest terms and the smallest size that still leave the same weight wrong. Nothing is written
    where the two agree. `reading` as for `verify`. Raises Inconclusive where neither agreement nor
    a difference can be shown.
    """
    from flatfold.proof import reduce_pair
    from flatfold.sources import resolve_both, sizes_to_compare_at

    a, b, _ = resolve_both(model_a, model_b, **reading)
    return reduce_pair(a.model, b.model, Path(folder), progress, sizes_to_compare_at(a, b))


def load(folder: str | os.PathLike[str]) -> Engine:
    """The engine saved in `folder`, after checking every file against the manifest."""
    from flatfold.backends import store

    return store.load(folder)


def create_model(name: str, **options: Any) -> nn.Module:
    """A model of the zoo in its training form, in eval mode, with seeded weights."""
    from flatfold.models import create_model as create

    return create(name, **options)


def list_models(pattern: str = "*") -> list[str]:
    """Names in the zoo that match a shell pattern."""
    from flatfold.models import list_models as names

    return names(pattern)
