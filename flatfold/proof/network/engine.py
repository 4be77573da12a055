"""Whether an engine computes the same as the original graph, in the precision that it runs in.

The graph is proved before an engine is built from it, so an error here is the target's. The limits
are those of `judge`, times the ratio of the roundoff of the engine's precision to that of the
graph's: how much a network amplifies roundings shows in the original's own error.

Where the graph, or the engine, computes in float16 or bfloat16, the engine is compared with the
graph that it was built from, and held to what the roundings of those types explain (`allowance`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from flatfold.backends import precision_of
from flatfold.errors import BuildError, InputError, TargetError, TargetUnavailable
from flatfold.proof.equivalence import Equivalence
from flatfold.proof.network.allowance import Allowance, EngineAllowance, unbounded_session
from flatfold.proof.network.arithmetic import (
    HALVES,
    Rounding,
    TypedSession,
    half_types,
    open_session,
)
from flatfold.proof.network.inputs import Feeds, draw_feeds, input_specs
from flatfold.proof.network.judge import (
    LARGEST,
    LESS_EXACT,
    MAX_FACTOR,
    MOST,
    NOT_FLOATS,
    RMS_FACTOR,
    ROUNDOFF,
    Comparison,
    rounding_growth,
)
from flatfold.proof.network.output_range import output_scale
from flatfold.proof.network.reference import Outputs, Reference
from flatfold.proof.network.rounding import rounded_otherwise
from flatfold.proof.network.run import (
    ONNX_REFERENCE,
    comparison_of,
    may_be_random,
    outputs_of,
    reference_for,
    referenced_when_needed,
)
from flatfold.proof.network.session import PlainSession, require_runnable
from flatfold.proof.network.sizes import Shapes, sizes_that_run
from flatfold.system.progress import Progress, silent

INPUTS = 3  # of each size: two random ones, and one that is zero except for its border

SLACK = 8.0  # times the limit: the most that the kernels of a target add to rounding

LESS_ACCURATE = "the target is less accurate than its precision"

# One rounding in the precision that an engine reports. TF32 keeps as many digits as float16, and
# int8 has an error of at most half a step of 1 / 127.
ENGINE_ROUNDOFF = {
    "fp64": ROUNDOFF["DOUBLE"],
    "fp32": ROUNDOFF["FLOAT"],
    "tf32": ROUNDOFF["FLOAT16"],
    "fp16": ROUNDOFF["FLOAT16"],
    "bf16": ROUNDOFF["BFLOAT16"],
    "int8": 2.0**-8,
    "integer": 0.0,
}

# Of the two, the coarser first.
HALF_PRECISIONS = {"bf16": ir.DataType.BFLOAT16, "fp16": ir.DataType.FLOAT16}

Run = Callable[[Feeds], Mapping[str, npt.NDArray[Any]]]


def check_engine(
    run: Run,
    precision: str,
    original: ir.Model,
    rewritten: ir.Model,
    *,
    reference: Reference | None = None,
    before: Reference | None = None,
    sizes: Sequence[Shapes] | None = None,
    proved: bool = True,
    progress: Progress = silent,
) -> Equivalence:
    """The verdict `sampled`, `refuted`, or `unknown` where the engine cannot be run or compared.

    `run` returns the outputs of the engine built from `rewritten`, by name; `precision` is
    `Engine.precision`. An error beyond the limits that rounding can still explain is `sampled`, and
    the reason says that the target is less accurate. `before` runs the original; without it
    `original_session` does. `sizes` as for `compare`. `proved`: whether `rewritten` is known to
    compute what the original does; if not, half precision is compared with the original too.
    """
    try:
        comparisons: list[Comparison] = [*_typed(run, precision, original, rewritten, proved)]
        if not comparisons:
            before = before or original_session(original)
            comparisons = [_comparison(run, precision, original, rewritten, before, reference)]
        for comparison in comparisons:
            _try_inputs(comparison, original, sizes, progress)
    except (InputError, TargetUnavailable) as why:
        return Equivalence("unknown", reason=why.cause)
    except MemoryError:
        return Equivalence("unknown", reason="not enough memory to run the original graph")
    verdicts = [_verdict(comparison) for comparison in comparisons]
    return next((verdict for verdict in verdicts if not verdict.passed), verdicts[0])


def _verdict(comparison: Comparison) -> Equivalence:
    """The worst of all inputs, as it counts for an engine."""
    worst = comparison.result
    if worst is None:
        return Equivalence("unknown", reason="the engine takes none of the sizes tried")
    if worst.verdict == "unknown" or worst.reason == NOT_FLOATS:
        return worst
    if worst.error > MOST:  # that is wrong in any precision
        return replace(worst, verdict="refuted", bound=min(worst.bound, MOST))
    if isinstance(comparison, Allowance):
        return worst
    if LESS_EXACT in worst.reason:
        return replace(worst, reason=LESS_ACCURATE)
    slack = SLACK * (1 if worst.measure == LARGEST else MAX_FACTOR / RMS_FACTOR)
    if worst.verdict == "refuted" and worst.error <= slack * worst.bound:
        return replace(worst, verdict="sampled", reason=LESS_ACCURATE)
    return worst


def original_session(original: ir.Model) -> Reference:
    """Runs the original with optimisation off. Raises InputError where it cannot be run."""
    require_runnable(original)
    return open_session(original, "the graph")


def roundoff_of(precision: str) -> float:
    """The largest rounding of a precision such as "fp16+fp32"."""
    return max(ENGINE_ROUNDOFF.get(part, ROUNDOFF["FLOAT"]) for part in precision.split("+"))


def _typed(
    run: Run, precision: str, original: ir.Model, graph: ir.Model, proved: bool
) -> list[Allowance]:
    """The comparisons with typed graphs: `graph`, and the original where that is not `proved`.

    None where nothing is computed in half precision, or types are not supported.
    """
    narrow = narrowed(precision, graph)
    types = half_types(graph)
    if narrow is None and not types:
        return []
    try:
        beside = [_allowance(EngineAllowance, Rounding.MOVED, run, graph, narrow)]
        if not proved:
            kinds = [*types, *([narrow] if narrow is not None else [])]
            coarsest = max(kinds, key=lambda t: ROUNDOFF[t.name])
            beside.append(_allowance(Allowance, Rounding.REWEIGHTED, run, original, coarsest))
    except BuildError:
        return []
    return beside


def _allowance(
    kind: type[Allowance], draws: Rounding, run: Run, graph: ir.Model, narrow: ir.DataType | None
) -> Allowance:
    """An engine beside a typed graph, whose roundings are drawn anew by `draws`."""
    outputs = graph.graph.outputs
    types = [value.dtype.name if value.dtype is not None else "" for value in outputs]
    return kind(
        TypedSession(graph, narrow=narrow),
        _by_name(run, graph),
        referenced_when_needed(graph),
        ONNX_REFERENCE,
        max(ROUNDOFF.get(name, ROUNDOFF["FLOAT"]) for name in types),
        outputs=[value.name or "" for value in outputs],
        scales=[output_scale(value) for value in outputs],
        random=may_be_random(graph),
        rounded=lambda: TypedSession(graph, draws, narrow),
        exactly=lambda: TypedSession(graph, Rounding.NONE),
        unbounded=unbounded_session(graph, narrow),
    )


def narrowed(precision: str, graph: ir.Model) -> ir.DataType | None:
    """The half precision that an engine computes in and the graph does not, if any."""
    parts = set(precision.split("+")) - set(precision_of(graph).split("+"))
    found = [dtype for name, dtype in HALF_PRECISIONS.items() if name in parts]
    return found[0] if found else None


def _by_name(run: Run, graph: ir.Model) -> Callable[[Feeds], Outputs]:
    """Outputs of an engine in the order of those of `graph`, half precision in float32.

    Raises BuildError where it fails, or an output has another type.
    """
    declared = {value.name or "": value.dtype for value in graph.graph.outputs}

    def after(feeds: Feeds) -> Outputs:
        outputs = _run(run, feeds)
        for name, dtype in declared.items():
            if dtype is not None and outputs[name].dtype != dtype.numpy():
                raise BuildError(f"output {name!r} is {outputs[name].dtype}, not {dtype.name}")
        halves = {name for name, dtype in declared.items() if dtype in HALVES}
        arrays = {name: outputs[name] for name in declared}
        return [a.astype(np.float32) if n in halves else a for n, a in arrays.items()]

    return after


def _run(run: Run, feeds: Feeds) -> Mapping[str, npt.NDArray[Any]]:
    try:
        return run(feeds)
    except TargetUnavailable:
        raise
    except TargetError as error:
        raise BuildError(error.cause) from error


def _comparison(
    run: Run,
    precision: str,
    original: ir.Model,
    rewritten: ir.Model,
    before: Reference | None,
    reference: Reference | None,
) -> Comparison:
    before = before or original_session(original)
    dtype = original.graph.outputs[0].dtype
    graph = ROUNDOFF.get(dtype.name if dtype is not None else "FLOAT", 2.0**-24)
    coarser = max(roundoff_of(precision) / (roundoff_of(precision_of(original)) or graph), 1.0)

    def named_reference(reference: Reference | None) -> tuple[Reference, str]:
        exact, name = reference_for(original, before, reference)
        # Without a reference, `Comparison` allows UNREFERENCED roundings. Those of a coarser engine
        # are so large that anything would pass, so that it is kept from recognising `before`.
        unsure = exact is before and coarser > 1
        return (lambda feeds: before(feeds)) if unsure else exact, name

    names = [value.name or "" for value in original.graph.outputs]

    def after(feeds: Feeds) -> Outputs:
        outputs = _run(run, feeds)
        return [outputs[name] for name in names]

    growth = rounding_growth(original, rewritten) * coarser
    exact, name = named_reference(reference)
    comparison = comparison_of(original, before, after, exact, name, graph, growth)
    comparison.rounded = lambda: PlainSession(rounded_otherwise(original, coarser))
    if coarser > 1:  # the original's error times that is more than MOST in many networks
        comparison.most = math.inf
    if reference is not None:
        comparison.fallback = lambda: named_reference(None)
    return comparison


def _try_inputs(
    comparison: Comparison,
    original: ir.Model,
    sizes: Sequence[Shapes] | None,
    progress: Progress,
) -> None:
    """Compare on a few inputs of each size that both the original and the engine accept."""
    specs = input_specs(original)
    settings = sizes or sizes_that_run(original, run=comparison.before)
    for number, shapes in enumerate(settings):
        for count, (kind, feeds) in enumerate(draw_feeds(specs, shapes, seed=number)):
            if count >= INPUTS:
                break
            label = f"{kind} {'x'.join(map(str, next(iter(shapes.values()), ())))}"
            progress(label)
            outputs = outputs_of(comparison.before, feeds)
            if outputs is None:
                continue
            try:
                comparison.try_input(label, feeds, outputs)
            except InputError:  # an engine may accept some sizes only
                break
