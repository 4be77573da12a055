"""A graph in 8 bits on a part of the data, judged on all of it: quantized, or degraded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import onnx_ir as ir

from flatfold.passes.quantization.dialect import DIALECTS, ORT_CPU
from flatfold.precision import Precision
from flatfold.proof.network.session import PlainSession
from flatfold.quantizing.comparison import Comparison
from flatfold.quantizing.mixed import Allowed
from flatfold.quantizing.recipe import quantized
from flatfold.result import Optimized, Rounded
from flatfold.system.progress import Progress, silent

Feeds = Sequence[Mapping[str, Any]]

FEWEST = 8  # runs, below which none is held out
EVERY = 4  # of which one is


def in_codes(
    equalized: Optimized,
    plain: Optimized,
    precision: Precision,
    runs: Feeds,
    target: str,
    *,
    given: bool,
    progress: Progress = silent,
) -> Optimized:
    """One of the two results, which compute the same, in 8 bits, in the dialect of `target`.

    A quarter of the `runs` that were `given` is held out, and only used to see what is lost.
    """
    seen, held = split(runs) if given else (runs, [])
    allowed = None
    if precision.kind == "mixed" and precision.allowed_drop is not None:
        allowed = Allowed(precision.allowed_drop, precision.accuracy)
    result = quantized(
        equalized,
        precision,
        seen,
        DIALECTS.get(target, ORT_CPU),
        given=given,
        unequalized=plain,
        allowed=allowed,
        progress=progress,
    )
    return judged_on(result, held, precision)


def split(runs: Feeds) -> tuple[Feeds, Feeds]:
    """The runs to quantize by, and those that are held out; none of a few."""
    if len(runs) < FEWEST:
        return runs, []
    held = [run for number, run in enumerate(runs) if number % EVERY == EVERY - 1]
    return [run for number, run in enumerate(runs) if number % EVERY != EVERY - 1], held


def judged_on(result: Optimized, held: Feeds, precision: Precision) -> Optimized:
    """The result with what it loses on inputs that were held out, and of the accuracy."""
    rounded, exact = result.rounded, result.float_graph
    assert rounded is not None and exact is not None
    if held:
        found = Comparison(exact, held).of(result.graph)
        rounded = replace(
            rounded,
            held_runs=len(held),
            held_decibels=found.decibels,
            held_agreement=found.agreement,
        )
    lost = _lost(exact, result.graph, rounded, precision)
    rounded = replace(rounded, lost=lost, max_drop=precision.allowed_drop)
    return replace(result, rounded=rounded)


def _lost(exact: ir.Model, graph: ir.Model, rounded: Rounded, precision: Precision) -> float | None:
    """What is lost of the accuracy, or of the agreement on the inputs that were held out."""
    if precision.accuracy is not None:
        before, after = (precision.accuracy(PlainSession(model)) for model in (exact, graph))
        return before - after
    agreement = rounded.agreement if rounded.held_agreement is None else rounded.held_agreement
    return None if agreement is None else 1 - agreement
