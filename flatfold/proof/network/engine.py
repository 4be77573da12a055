"""Whether an engine computes what the original graph does, in the precision it runs in.

The graph is proved before an engine is built from it, so that what is off here is the target. The
limits are those of `comparison`. An engine of a coarser precision may round by as much more as one
rounding of it is larger: how badly a network magnifies roundings shows in the original's own error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy.typing as npt
import onnx_ir as ir

from flatfold.backends import precision_of
from flatfold.errors import BuildError, InputError, TargetError, TargetUnavailable
from flatfold.proof.equivalence import Equivalence
from flatfold.proof.network.inputs import Feeds, draw, settings
from flatfold.proof.network.judge import NOT_FLOATS, ROUNDOFF, Comparison, rounding_growth
from flatfold.proof.network.reference import Outputs, Reference
from flatfold.proof.network.run import (
    judge_of,
    outputs_of,
    plain_session,
    require_runnable,
    specs_of,
)
from flatfold.system.progress import Progress, silent

INPUTS = 3  # of each size: two random ones, and one that is zero but for its border

MOST = 0.25  # of the output's range: what is further off is wrong in any precision

LESS_ACCURATE = "the target is less accurate than its precision"

# One rounding in what an engine says it runs in. TF32 keeps as many digits as float16, and int8
# is off by at most half a step of 1 / 127.
ENGINE_ROUNDOFF = {
    "fp64": ROUNDOFF["DOUBLE"],
    "fp32": ROUNDOFF["FLOAT"],
    "tf32": ROUNDOFF["FLOAT16"],
    "fp16": ROUNDOFF["FLOAT16"],
    "bf16": ROUNDOFF["BFLOAT16"],
    "int8": 2.0**-8,
    "integer": 0.0,
}

Run = Callable[[Feeds], Mapping[str, npt.NDArray[Any]]]


def check_engine(
    run: Run,
    precision: str,
    original: ir.Model,
    rewritten: ir.Model,
    *,
    reference: Reference | None = None,
    before: Reference | None = None,
    progress: Progress = silent,
) -> Equivalence:
    """Verdict `sampled`, `refuted`, or `unknown` where the engine cannot be run or compared.

    `run` gives the outputs of the engine built from `rewritten` by name, and `precision` is in the
    words of `Engine.precision`. What is off by no more than rounding may be is `sampled`, and its
    reason says that the target is less accurate. `before` runs the original, where somebody has it
    at hand; without it `original_session` makes it.
    """
    try:
        before = before or original_session(original)
        comparison = _comparison(run, precision, original, rewritten, before, reference)
        _try_inputs(comparison, original, progress)
    except (InputError, TargetUnavailable) as why:
        return Equivalence("unknown", reason=why.cause)
    except MemoryError:
        return Equivalence("unknown", reason="not enough memory to run the original graph")
    if comparison.worst is None:
        return Equivalence("unknown", reason="the engine takes none of the sizes tried")
    found = replace(comparison.worst, inputs=tuple(comparison.tried), reference=comparison.name)
    if found.reason == NOT_FLOATS:
        return found
    if found.error > MOST:
        return replace(found, verdict="refuted", bound=min(found.bound, MOST))
    if found.is_less_exact:
        return replace(found, verdict="sampled", reason=LESS_ACCURATE)
    return found


def original_session(original: ir.Model) -> Reference:
    """The original as it is, with no optimisation. Raises InputError where it cannot be run."""
    require_runnable(original)
    return plain_session(original, "the graph")


def roundoff_of(precision: str) -> float:
    """The largest rounding of a precision such as "fp16+fp32"."""
    return max(ENGINE_ROUNDOFF.get(part, ROUNDOFF["FLOAT"]) for part in precision.split("+"))


def _comparison(
    run: Run,
    precision: str,
    original: ir.Model,
    rewritten: ir.Model,
    before: Reference,
    reference: Reference | None,
) -> Comparison:
    dtype = original.graph.outputs[0].dtype
    graph = ROUNDOFF.get(dtype.name if dtype is not None else "FLOAT", 2.0**-24)
    coarser = max(roundoff_of(precision) / (roundoff_of(precision_of(original)) or graph), 1.0)

    def judged_by(reference: Reference | None) -> tuple[Reference, str]:
        judge, name = judge_of(original, before, reference)
        # A graph that judges itself is allowed roundings which nothing tells. A coarser engine's
        # are so much larger that an allowance for them, too, would let anything pass.
        unsure = judge is before and coarser > 1
        return (lambda feeds: before(feeds)) if unsure else judge, name

    names = [value.name or "" for value in original.graph.outputs]

    def after(feeds: Feeds) -> Outputs:
        try:
            found = run(feeds)
        except TargetUnavailable:
            raise
        except TargetError as error:
            raise BuildError(error.cause) from error
        return [found[name] for name in names]

    growth = rounding_growth(original, rewritten) * coarser
    comparison = Comparison(before, after, *judged_by(reference), graph, growth)
    if reference is not None:
        comparison.other = lambda: judged_by(None)
    return comparison


def _try_inputs(comparison: Comparison, original: ir.Model, progress: Progress) -> None:
    """Compares on a few inputs of each size that both the original and the engine take."""
    specs = specs_of(original)
    for number, shapes in enumerate(settings(specs)):
        for count, (kind, feeds) in enumerate(draw(specs, shapes, seed=number)):
            if count >= INPUTS:
                break
            label = f"{kind} {'x'.join(map(str, next(iter(shapes.values()), ())))}"
            progress(label)
            outputs = outputs_of(comparison.before, feeds)
            if outputs is None:
                break
            try:
                comparison.try_input(label, feeds, outputs)
            except InputError:  # an engine may be made for some sizes only
                break
