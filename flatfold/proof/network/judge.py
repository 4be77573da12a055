"""Outputs of two graphs on one input, judged by a float64 reference.

Accepted: max-norm error at most 8 times, and rms error at most 4 times, that of the original or of
one rounding of the output, whichever is more. A right rewrite is not as exact as its original,
whose weights are exact by definition: folded weights are rounded once. Over 28 layers of RepVGG-B0
that alone makes the rms error 1.6 to 2.7 times the original's (112 inputs, two networks). Where the
longest sum of the rewritten graph has K' products and that of the original K, both limits are
sqrt(K' / K) times as high (`rounding_growth`): one long sum in place of several short ones.

Only what no rounding explains is refuted. An output beyond these limits is looked at closer:

- Where both graphs can be cut in front of operators that jump (`jump`), they are, and compared from
  there: the operands of the jump, and what lies behind it on the same operands.
- The original runs again with other roundings (`rounding`), and its largest error counts.

An error of more than MOST of the range is never accepted because so much was allowed: on such an
input the output is not judged. An output that no input could judge makes the verdict `unknown`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from flatfold.errors import BuildError, FlatfoldError
from flatfold.proof.equivalence import Equivalence
from flatfold.proof.network.inputs import EXTREME, Feeds, perturbed
from flatfold.proof.network.reference import NoReference, Outputs, Reference

# Unit roundoff u of each type, and the distance between its numbers below the smallest normal one.
ROUNDOFF = {"DOUBLE": 2.0**-53, "FLOAT": 2.0**-24, "FLOAT16": 2.0**-11, "BFLOAT16": 2.0**-8}
SPACING = {"FLOAT16": 2.0**-24, "FLOAT": 2.0**-149, "BFLOAT16": 2.0**-133}

# The most that an error over u * M may be where the weights of a region are rounded once.
MARGIN = 1.01

# Limits of the error over the original's, largest and root mean square.
MAX_FACTOR, RMS_FACTOR = 8.0, 4.0
LARGEST, MEAN = "worst", "root mean square"

# The most of the range that an error may be, and be called rounding: an output with fewer than two
# right bits is none. An output that belongs to another input is typically off by that much.
MOST = 0.25

NUDGES = 16  # runs with other roundings, where one error of the original is not enough

# Without a reference the original's own error is not known: it is assumed to be so many roundings.
UNREFERENCED = 64

# References that are rejected before no further one is computed.
REJECTIONS = 2

# A sum that is divided again, such as a mean, may be this many times as large before that.
MOST_TERMS = 1 << 12

# Below the smallest normal number roundings are absolute; this many of them are allowed.
DENORMAL = 1024
TINY = {"float16": 2.0**-14, "float32": 2.0**-126, "float64": 2.0**-1022}

OWN_PRECISION = "the original in its own precision"
NOT_FLOATS = "outputs that are no floating-point numbers differ"
ROUNDING = "rounding alone decides"
LESS_EXACT = "less exact than the original, by no more than other roundings of it"
JUDGED = ":judged"  # ends the name of a value that is compared in front of a jump

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Judgement:
    """The verdict on one output for one input, and its error over the limit.

    The verdict is `sampled` (within the limits), `refuted`, or `unknown` where the input shows
    nothing about the output.
    """

    output: str
    excess: float
    result: Equivalence


@dataclass(frozen=True)
class Closer:
    """The two graphs cut at `kinds` of operators: a comparison, and its inputs for the feeds."""

    comparison: Comparison
    feeds: Callable[[Feeds], Feeds]
    kinds: tuple[str, ...]


@dataclass
class Comparison:
    """Two graphs and a reference, compared input by input.

    before, after: run the original and the rewritten graph. name: of the reference. roundoff: of
    the original's type. growth: how much more the rewritten graph may round, at least 1. outputs:
    their names. scales: of outputs that are bounded, the size of their range, else None. most: the
    largest limit that still shows something, over the range. random: whether the original may give
    other outputs each time. remark: the reason given where only other roundings of the original
    explain the error. otherwise: the name of what outputs are compared with where the reference is
    not used. rounded: builds a function that runs the original with other roundings
    each time. closer: builds the comparison of both graphs cut in front of their jumps. fallback:
    another reference and its name, for inputs where the first fails. overflows: whether numbers
    inside the original come near the largest of their type for an input. tried: labels of the
    inputs so far. rejected: how often the reference ran, but its outputs were too far from the
    original's to be used.
    """

    before: Reference
    after: Callable[[Feeds], Outputs]
    reference: Reference
    name: str
    roundoff: float
    growth: float = 1.0
    outputs: Sequence[str] = ()
    scales: Sequence[float | None] = ()
    most: float = MOST
    random: bool = True
    remark: str = LESS_EXACT
    otherwise: str = OWN_PRECISION
    rounded: Callable[[], Reference] | None = None
    closer: Callable[[Feeds], Closer | None] | None = None
    fallback: Callable[[], tuple[Reference, str]] | None = None
    overflows: Callable[[Feeds], bool] = lambda _: False
    tried: list[str] = field(default_factory=list)
    judgements: list[Judgement] = field(default_factory=list)
    rejected: int = 0
    _referenced: bool = False
    _runs: list[Reference] = field(default_factory=list)
    _cut: list[Closer | None] = field(default_factory=list)

    def try_input(self, label: str, feeds: Feeds, original: Outputs) -> None:
        """Compare the outputs for `feeds`; `original` holds those of the original graph."""
        first = not self.tried
        self.tried.append(label)
        if first and self.random and not close(self.before(feeds), original, self.roundoff**0.5):
            reason = "the original gives other outputs each time, so nothing can be compared"
            result = Equivalence("unknown", worst_input=label, reason=reason)
            self.judgements.append(Judgement("", np.inf, result))
            return
        self.judgements += self.judge_input(label, feeds, original)

    @property
    def result(self) -> Equivalence | None:
        """The verdict over all inputs so far, with the worst error of an output; None before any.

        `refuted` if one is; `unknown` if no input could judge some output, which is named.
        """
        if not self.judgements:
            return None
        results = [self._worst("refuted"), self._unjudged(), self._worst("sampled")]
        worst = next(result for result in results if result is not None)
        used = self._referenced or self.reference is self.before
        name = self.name if used else self.otherwise
        return replace(worst, inputs=tuple(self.tried), reference=name)

    def _worst(self, verdict: str) -> Equivalence | None:
        found = [j for j in self.judgements if j.result.verdict == verdict]
        if not found:
            return None
        worst = max(found, key=lambda judgement: judgement.excess).result
        if verdict == "refuted":
            return worst
        reasons = [j.result.reason for j in self.judgements if j.result.reason]
        return replace(worst, reason="; ".join(list(dict.fromkeys(reasons))[:2]))

    def _unjudged(self) -> Equivalence | None:
        """The verdict `unknown` where some output was judged on no input."""
        judged = {j.output for j in self.judgements if j.result.verdict == "sampled"}
        others = [j for j in self.judgements if j.output not in judged]
        if not others:
            return None
        parts = {f"output {j.output}" if j.output else "": j.result.reason for j in others}
        texts = [f"{part}: {why}" if part else why for part, why in parts.items()]
        return replace(
            others[0].result, reason="; ".join(texts[:2]), uncovered=tuple(filter(None, parts))
        )

    def judge_input(self, label: str, feeds: Feeds, original: Outputs) -> list[Judgement]:
        """One judgement for each output, each looked at closer where it is not within limits."""
        try:
            rewritten = self.after(feeds)
        except BuildError as why:
            reason = f"the other graph cannot be run on it: {why.cause}"
            result = Equivalence("refuted", np.inf, worst_input=label, reason=reason)
            return [Judgement("", np.inf, result)]
        exact, is_exact = original, False
        if not same_bits(original, rewritten):
            exact, is_exact = self._exact(feeds, original, label.startswith(EXTREME))
            self._referenced |= is_exact
        one = _Input(label, feeds, exact, [original], rewritten, is_exact)
        judgements = self._judge_outputs(one)
        if all(judgement.result.verdict == "sampled" for judgement in judgements):
            return judgements
        again = self._judge_cut(one, feeds, len(judgements))
        if again is None:
            runs = [run for run in (self._rounded(feeds, seed) for seed in range(NUDGES)) if run]
            again = self._judge_outputs(replace(one, originals=[original, *runs]), self.remark)
        pairs = zip(judgements, again, strict=True)
        return [
            first if first.result.verdict == "sampled" else replace(second, output=first.output)
            for first, second in pairs
        ]

    def _exact(self, feeds: Feeds, original: Outputs, extreme: bool) -> tuple[Outputs, bool]:
        """The reference's outputs, or the original's own where the reference fails or is rejected.

        And whether they are the reference's. One that differs from the original by more than
        rounding reads some operator in another way; on `extreme` inputs the difference is rounding.
        """
        if self.reference is self.before:
            return original, False
        exact = self._evaluate_reference(feeds)
        if close(exact, original, np.inf if extreme else self.roundoff**0.5, self.scales):
            return exact, True
        self.rejected += bool(exact)
        if not exact or self.rejected >= REJECTIONS:
            self.reference, self.name = self.before, OWN_PRECISION
        return original, False

    def _evaluate_reference(self, feeds: Feeds) -> Outputs:
        """Outputs of the reference, or of the fallback if it fails; an empty list if both fail."""
        try:
            return self.reference(feeds)
        except NoReference:
            if self.fallback is None:
                return []
        (self.reference, self.name), self.fallback = self.fallback(), None
        return self._evaluate_reference(feeds)

    def _closer(self, feeds: Feeds) -> Closer | None:
        """Both graphs cut in front of their jumps; None where they cannot be, or have none."""
        if not self._cut:
            try:
                self._cut.append(self.closer(feeds) if self.closer is not None else None)
            except (FlatfoldError, MemoryError):
                self._cut.append(None)
        return self._cut[0]

    def _judge_cut(self, one: _Input, feeds: Feeds, count: int) -> list[Judgement] | None:
        """The worst judgement on the cut graphs, once for each output; None without a cut."""
        closer = self._closer(feeds)
        if closer is None:
            return None
        try:
            more = closer.feeds(feeds)
            original = closer.comparison.before(more)
        except (FlatfoldError, MemoryError):
            return None
        inner = closer.comparison.judge_input(one.label, more, original)
        ranks = ("refuted", "unknown", "sampled")
        worst = min(inner, key=lambda j: (ranks.index(j.result.verdict), -j.excess))
        reason = worst.result.reason
        if worst.result.verdict == "sampled":
            kinds = ", ".join(dict.fromkeys(closer.kinds))
            reason = f"compared in front of {kinds}, and behind on the same numbers"
        elif worst.output:
            reason = f"{worst.output.removesuffix(JUDGED)}{': ' * bool(reason)}{reason}"
        return [replace(worst, result=replace(worst.result, reason=reason))] * count

    def _rounded(self, feeds: Feeds, seed: int) -> Outputs | None:
        """The original's outputs with other roundings; None where they cannot be computed."""
        if not self._runs:
            try:
                self._runs.append(self.rounded() if self.rounded is not None else self.before)
            except (FlatfoldError, MemoryError):
                self._runs.append(self.before)
        run = self._runs[0]
        try:
            return run(perturbed(feeds, seed) if run is self.before else feeds)
        except (FlatfoldError, MemoryError):
            return None

    def _judge_outputs(self, one: _Input, remark: str = "") -> list[Judgement]:
        """One judgement for each output, from the errors of both graphs against `exact`.

        `remark` is the reason given where an output passes, unless its input is an extreme one.
        """
        columns = zip(one.exact, one.rewritten, *one.originals, strict=False)
        judgements = []
        for index, (y, b, *a) in enumerate(columns):
            arrays = np.asarray(y), [np.asarray(run) for run in a], np.asarray(b)
            scale = self.scales[index] if index < len(self.scales) else None
            excess, result = self._judge(one, *arrays, scale)
            if result.verdict == "sampled" and not one.label.startswith(EXTREME):
                result = replace(result, reason=remark)
            name = self.outputs[index] if index < len(self.outputs) else str(index)
            judgements.append(Judgement(name, excess, result))
        return judgements

    def _judge(
        self,
        one: _Input,
        exact: Array,
        originals: list[Array],
        rewritten: Array,
        width: float | None,
    ) -> tuple[float, Equivalence]:
        label, original = one.label, originals[0]
        alike = [a for a in originals if a.shape == original.shape and a.dtype == original.dtype]
        if rewritten.shape != original.shape or rewritten.dtype != original.dtype:
            reason = f"output is {rewritten.shape} {rewritten.dtype}, was {original.shape}"
            return _differing(label, reason, len(alike) < len(originals))
        if exact.dtype.kind not in "f":
            if np.array_equal(original, rewritten):
                return 0.0, Equivalence("sampled", worst_input=label)
            varying = len(alike) < len(originals)
            varying |= any(not np.array_equal(original, other) for other in alike)
            return _differing(label, NOT_FLOATS, varying)
        extreme = label.startswith(EXTREME)
        reason = _unlike_infinities(exact, alike, rewritten, extreme)
        if reason:
            varying = may_overflow(original) or self.overflows(one.feeds)
            return _differing(label, reason, varying)
        if extreme:  # elements that are not finite are not compared
            finite = np.all(np.isfinite([exact, rewritten, *alike]), axis=0)
            exact, rewritten = exact[finite], rewritten[finite]
            alike = [run[finite] for run in alike]
        return self._judge_floats(one, exact, alike, rewritten, width)

    def _judge_floats(
        self,
        one: _Input,
        exact: Array,
        originals: list[Array],
        rewritten: Array,
        width: float | None,
    ) -> tuple[float, Equivalence]:
        """By the errors over the largest number of the output, then over its whole range."""
        sizes = np.abs(exact[np.isfinite(exact)])
        seen = float(np.max(sizes, initial=0.0)) or 1.0
        floor = self._floor(rewritten.dtype.name, seen, one.is_exact)
        new = distance(rewritten, exact, seen)
        old = self._own_errors([distance(run, exact, seen) for run in originals])
        wide = floor * max((width or 0.0) / seen, 1.0)
        least = self._limits(floor, floor)
        limits = self._limits(max(old[0], wide), max(old[1], wide))
        excess, measure = _excess(new, limits)
        error, own = (new[0], old[0]) if measure == LARGEST else (new[1], old[1])
        bound = limits[0] if measure == LARGEST else limits[1]
        result = Equivalence("sampled", error, own, bound, one.label, measure=measure)
        decisive = math.isfinite(limits[0]) and limits[0] <= self.most
        if _excess(new, least)[0] <= 1 or (excess <= 1 and decisive):
            return excess, result
        if excess > 1 and math.isfinite(limits[0]):
            return excess, replace(result, verdict="refuted")
        reason = f"{ROUNDING} more than {self.most:g} of its range on {one.label}"
        return excess, replace(result, verdict="unknown", reason=reason)

    def _own_errors(self, errors: Sequence[tuple[float, float]]) -> tuple[float, float]:
        """(largest, root mean square) of the original: the most of those of its runs."""
        return max(error[0] for error in errors), max(error[1] for error in errors)

    def _floor(self, dtype: str, seen: float, is_exact: bool) -> float:
        """The least that an error is taken for, over `seen`: roundings of an output of `dtype`."""
        floor = self.roundoff * (UNREFERENCED if not is_exact else 1)
        return floor + DENORMAL * TINY.get(dtype, 0.0) * self.roundoff / seen

    def _limits(self, largest: float, mean: float) -> tuple[float, float]:
        return MAX_FACTOR * self.growth * largest, RMS_FACTOR * self.growth * mean


@dataclass(frozen=True)
class _Input:
    """Outputs for the input `label`; the first of `originals` is the original's run itself.

    is_exact: whether `exact` is the reference's, not the original's own.
    """

    label: str
    feeds: Feeds
    exact: Outputs
    originals: list[Outputs]
    rewritten: Outputs
    is_exact: bool


def _differing(label: str, reason: str, varying: bool) -> tuple[float, Equivalence]:
    """Outputs that are different altogether: unknown where the original's are `varying` as well."""
    if varying:
        reason = f"{ROUNDING} on {label}: {reason}"
        return np.inf, Equivalence("unknown", worst_input=label, reason=reason)
    error = 0.0 if reason == NOT_FLOATS else np.inf
    return np.inf, Equivalence("refuted", error, worst_input=label, reason=reason)


def _unlike_infinities(
    exact: Array, originals: list[Array], rewritten: Array, extreme: bool
) -> str:
    """How `rewritten` differs in its infinities and NaN; empty if it does not.

    On an `extreme` input only finite elements may not become others.
    """
    lost = ~np.isfinite(rewritten) & np.all(np.isfinite([exact, *originals]), axis=0)
    if np.any(lost):
        return f"{np.count_nonzero(lost)} outputs are no longer finite"
    kinds = [np.nan_to_num(run, nan=0.0) for run in (originals[0], rewritten)]
    other = ~np.isfinite(originals[0]) & ~np.isfinite(rewritten) & (kinds[0] != kinds[1])
    if np.any(other) and not extreme:
        return f"{np.count_nonzero(other)} outputs are other infinities or NaN"
    return ""


def may_overflow(outputs: Array) -> bool:
    """Whether the numbers are so large that another order of the sums behind them may overflow."""
    if outputs.dtype.name not in ("float32", "float64"):  # of half precision any number is so large
        return False
    largest = float(np.max(np.abs(outputs[np.isfinite(outputs)]), initial=0.0))
    return largest > float(np.finfo(outputs.dtype).max) / MOST_TERMS


def _excess(errors: tuple[float, float], limits: tuple[float, float]) -> tuple[float, str]:
    """The larger of both errors over its limit, and which one that is."""
    with np.errstate(invalid="ignore", divide="ignore"):
        ratios = np.nan_to_num(np.divide(errors, limits), nan=0.0, posinf=np.inf)
    return (float(ratios[0]), LARGEST) if ratios[0] >= ratios[1] else (float(ratios[1]), MEAN)


def same_bits(original: Outputs, rewritten: Outputs) -> bool:
    """Whether all outputs have the same numbers: then no reference can tell them apart."""
    return len(original) == len(rewritten) and all(
        a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
        for a, b in zip(map(np.asarray, original), map(np.asarray, rewritten), strict=True)
    )


def close(
    exact: Outputs, original: Outputs, most: float, widths: Sequence[float | None] = ()
) -> bool:
    """Whether shapes are equal, and floats differ by at most `most` times the largest `exact`.

    Or times the range of the output, where `widths` has one.
    """
    if [np.shape(y) for y in exact] != [np.shape(a) for a in original]:
        return False
    for index, (y, a) in enumerate(zip(exact, original, strict=True)):
        y, a = np.asarray(y), np.asarray(a)
        finite = np.isfinite(y) & np.isfinite(a) if y.dtype.kind == "f" else np.zeros(y.shape, bool)
        width = (widths[index] or 0.0) if index < len(widths) else 0.0
        scale = max(float(np.max(np.abs(y[finite]), initial=0.0)), width) or 1.0
        gap = np.abs(a[finite].astype(np.float64) - y[finite]) / scale
        if not np.max(gap, initial=0.0) <= most:
            return False
    return True


def distance(y: Array, exact: Array, scale: float) -> tuple[float, float]:
    """(largest, root mean square) error over `scale`; elements that are NaN in both count as 0."""
    same = (y == exact) | (np.isnan(y) & np.isnan(exact))
    with np.errstate(invalid="ignore"):
        error = np.where(same, 0.0, np.abs(y.astype(np.float64) - exact) / scale)
    if error.size == 0:
        return 0.0, 0.0
    if not np.all(np.isfinite(error)):
        return np.inf, np.inf
    return float(error.max()), float(np.sqrt(np.mean(error**2)))


def rounding_growth(original: ir.Model, rewritten: ir.Model) -> float:
    """sqrt(K' / K), at least 1: how much more the rewritten graph may round (Higham and Mary 2019).

    Layers that were composed have one long sum in place of several short ones.
    """
    return math.sqrt(max(longest_sum(rewritten) / longest_sum(original), 1.0))


def longest_sum(model: ir.Model) -> int:
    """The number of products in the longest sum of a layer or pool; 1 where no sum has any."""
    return max((1, *(_products(node) for node in model.graph.all_nodes())))


def _products(node: ir.Node) -> int:
    if node.op_type == "AveragePool" and "kernel_shape" in node.attributes:
        return math.prod(node.attributes["kernel_shape"].as_ints())
    weight = node.inputs[1] if len(node.inputs) > 1 else None
    if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul") or weight is None:
        return 1
    dims = [dim for dim in weight.shape or () if isinstance(dim, int)]
    if node.op_type == "Conv":
        return math.prod(dims[1:])
    if node.op_type == "ConvTranspose":
        return math.prod([*dims[:1], *dims[2:]])
    turned = node.op_type == "Gemm" and "transB" in node.attributes
    return max(dims[-1 if turned else 0] if dims else 1, 1)
