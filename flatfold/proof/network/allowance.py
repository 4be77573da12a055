"""How far the outputs of a typed graph may be off: as far as the roundings of its types explain.

A graph in half precision has two meanings: computed exactly, with the weights that it has, and with
every value rounded to its type. An engine is neither: it sums in a wider type, fuses activations
and skips the rounding of values that it does not store. But it rounds some of the values that the
graph rounds, so it is about as far from the exact outputs as the rounded ones are, or nearer. That
distance, of each output on each input, is what is allowed, times a margin; types inside decide, not
those of the outputs.

One run is one draw, so where an output is further off, the graph is computed again with the grid of
each value's numbers moved (`Rounding.MOVED`), and the distances of all draws count. An overflow is
no rounding: where a number leaves the range of float16, what is allowed is measured with more
range, and outputs that are further off are not judged, since what the graph itself means there is
lost.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from flatfold.errors import FlatfoldError
from flatfold.proof.network.arithmetic import (
    LARGEST_HALF,
    Rounding,
    TypedSession,
    half_types,
)
from flatfold.proof.network.inputs import EXTREME, Feeds, without_bfloat16
from flatfold.proof.network.judge import (
    DENORMAL,
    MOST,
    TINY,
    UNREFERENCED,
    Comparison,
    Judgement,
    close,
)
from flatfold.proof.network.reference import Outputs, Reference

# How much further off than the graph's own roundings an engine may be: it may round two thirds more
# values than the graph has, such as a product that the graph adds to before it rounds. Engines of
# OpenVINO and ONNX Runtime are at 0 to 1.3 times one draw (16 networks, both types, 48 engines).
MORE = 1.3
# Standard deviations of that distance from draw to draw: they decide for outputs of few numbers.
SPREADS = 5.0

OTHERWISE = "as far off as other roundings of its types"

IN_FLOAT32 = "the graph in float32"

Array = npt.NDArray[Any]


@dataclass
class Allowance(Comparison):
    """Outputs of a typed graph, compared as far as its roundings explain.

    exactly: builds what computes the graph exactly in float32, for inputs
    where the reference fails. unbounded: builds the graph's session with more range; None where its
    types have the range of float32.
    """

    remark: str = OTHERWISE
    exactly: Callable[[], Reference] | None = None
    unbounded: Callable[[], TypedSession] | None = None

    def __post_init__(self) -> None:
        self._built: dict[str, Any] = {}

    def judge_input(self, label: str, feeds: Feeds, original: Outputs) -> list[Judgement]:
        """As of any comparison; where float16 overflows, by what is allowed with more range."""
        wide, where = self._without_overflow(feeds, original)
        judgements = super().judge_input(label, feeds, wide)
        if not where or label.startswith(EXTREME):
            return judgements
        return [_with_overflow(judgement, where) for judgement in judgements]

    def _without_overflow(self, feeds: Feeds, original: Outputs) -> tuple[Outputs, str]:
        """The outputs to measure with, and which value overflows; the original's and "" if none."""
        if self.unbounded is None:
            return original, ""
        try:
            session = self._once("unbounded", self.unbounded)
            outputs, peaks = session.peaks(feeds)
        except (FlatfoldError, MemoryError):
            return original, ""
        over = [peak for peak in peaks if peak.overflows]
        if not over:
            return original, ""
        text = (
            f"{over[0].name!r} reaches {over[0].largest:.3g} and float16 ends at {LARGEST_HALF:g}"
        )
        return outputs, text

    def _once(self, name: str, build: Callable[[], Any]) -> Any:
        if name not in self._built:
            self._built[name] = build()
        return self._built[name]

    def _exact(self, feeds: Feeds, original: Outputs, extreme: bool) -> tuple[Outputs, bool]:
        """The reference's outputs; where it fails, or reads an operator in another way, float32's.

        Its own roundings, which may be large, are no reason to reject a reference.
        """
        if self.reference is not self.before:
            exact = self._evaluate_reference(without_bfloat16(feeds))
            if exact and close(exact, original, np.inf if extreme else MOST, self.scales):
                return exact, True
        if self.exactly is None:
            return original, False
        self.otherwise = IN_FLOAT32
        return self._once("exactly", self.exactly)(feeds), False

    def _floor(self, dtype: str, seen: float, is_exact: bool) -> float:
        """One rounding of the output, and what float32 adds where the reference is in float32."""
        floor = self.roundoff + DENORMAL * TINY.get(dtype, 0.0) * self.roundoff / seen
        return floor if is_exact else floor + UNREFERENCED * 2.0**-24


class EngineAllowance(Allowance):
    """What is allowed an engine, beside the graph that it was built from.

    Its weights are those of the graph, so that it is held closer than a rewritten graph, whose
    weights are rounded once more.
    """

    def _own_errors(self, errors: Sequence[tuple[float, float]]) -> tuple[float, float]:
        """The mean over all draws, and SPREADS standard deviations; of one draw, its own."""
        draws = np.array(errors)
        if len(draws) == 1 or not np.all(np.isfinite(draws)):
            return float(np.max(draws[:, 0])), float(np.max(draws[:, 1]))
        largest, mean = draws.mean(0) + SPREADS * draws.std(0, ddof=1)
        return float(largest), float(mean)

    def _limits(self, largest: float, mean: float) -> tuple[float, float]:
        return MORE * largest, MORE * mean


def unbounded_session(
    model: ir.Model, narrow: ir.DataType | None = None
) -> Callable[[], TypedSession] | None:
    """Builds the session of `model` that shows where float16 overflows; None without float16."""
    if ir.DataType.FLOAT16 not in {narrow, *half_types(model)}:
        return None
    return lambda: TypedSession(model, Rounding.UNBOUNDED, narrow)


def _with_overflow(judgement: Judgement, where: str) -> Judgement:
    """Passed, with the remark; otherwise unknown, since what is computed there is no rounding."""
    result = judgement.result
    if result.verdict == "sampled":
        reason = f"float16 overflows inside the graph ({where}), and here does no harm"
        return replace(judgement, result=replace(result, reason=reason))
    reason = (
        f"float16 overflows on {result.worst_input}: {where}; "
        "no rounding explains what is computed from there, in the graph or the target"
    )
    return replace(judgement, result=replace(result, verdict="unknown", reason=reason))
