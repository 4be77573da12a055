"""Outputs of two graphs on one input, judged by a float64 reference.

Accepted: max-norm error at most 8 times, and rms error at most 4 times, that of the original or of
one rounding of the output, whichever is more. A right rewrite is not as exact as its original,
whose weights are exact by definition: folded weights are rounded once. Over 28 layers of RepVGG-B0
that alone makes the rms error 1.6 to 2.7 times the original's (112 inputs, two networks). Where the
longest sum of the rewritten graph has K' products and that of the original K, both limits are
sqrt(K' / K) times as high (`rounding_growth`): one long sum in place of several short ones.

On very large inputs a gate may amplify roundings until few digits are right, and one error of the
original says little about the error with another order of sums. There a rewrite that is beyond the
limits is compared with the largest error that the original has on inputs whose last digits differ.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from flatfold.errors import BuildError
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

NUDGES = 16  # inputs with other last digits, where one error of the original is not enough

# Without a reference the original's own error is not known: it is assumed to be so many roundings.
UNREFERENCED = 64

# Below the smallest normal number roundings are absolute; this many of them are allowed.
DENORMAL = 1024
TINY = {"float16": 2.0**-14, "float32": 2.0**-126, "float64": 2.0**-1022}

NOT_FLOATS = "outputs that are no floating-point numbers differ"

Array = npt.NDArray[Any]

# The error over its limit, and what that means.
Judgement = tuple[float, Equivalence]


@dataclass
class Comparison:
    """Two graphs and a reference, compared input by input; `worst` is the worst result so far.

    before, after: run the original and the rewritten graph. name: of the reference. roundoff: of
    the original's type. growth: how much more the rewritten graph may round, at least 1. tried:
    labels of the inputs so far. excess: the error of `worst` over its limit. fallback: another
    reference and its name, for inputs where the first fails. rejected: the reference ran, but its
    outputs were too far from the original's to be used.
    """

    before: Reference
    after: Callable[[Feeds], Outputs]
    reference: Reference
    name: str
    roundoff: float
    growth: float = 1.0
    tried: list[str] = field(default_factory=list)
    worst: Equivalence | None = None
    excess: float = -1.0
    rejected: bool = False
    fallback: Callable[[], tuple[Reference, str]] | None = None

    def try_input(self, label: str, feeds: Feeds, original: Outputs) -> None:
        """Compare the outputs for `feeds`; `original` holds those of the original graph."""
        try:
            rewritten = self.after(feeds)
        except BuildError as why:
            self.tried.append(label)
            reason = f"the other graph cannot be run on it: {why.cause}"
            self._keep((np.inf, Equivalence("refuted", np.inf, worst_input=label, reason=reason)))
            return
        repeated = original if self.tried else self.before(feeds)
        if not close(repeated, original, self.roundoff**0.5):
            reason = "the original gives other outputs each time, so nothing can be compared"
            self._keep((np.inf, Equivalence("unknown", worst_input=label, reason=reason)))
            return
        extreme = label.startswith(EXTREME)
        exact = self._exact(feeds, original, extreme)
        self.tried.append(label)
        judgements = self._judge_outputs(label, exact, [original], rewritten)
        if extreme and any(excess > 1 for excess, _ in judgements):
            others = [self.before(perturbed(feeds, seed)) for seed in range(NUDGES)]
            judgements = self._judge_outputs(label, exact, [original, *others], rewritten)
        for judgement in judgements:
            self._keep(judgement)

    def _exact(self, feeds: Feeds, original: Outputs, extreme: bool) -> Outputs:
        """The reference's outputs, or the original's own once the reference fails or is rejected.

        A reference that differs from the original by more than rounding reads some operator in
        another way; on `extreme` inputs the difference is rounding.
        """
        if self.reference is not self.before:
            exact = self._evaluate_reference(feeds)
            if close(exact, original, np.inf if extreme else self.roundoff**0.5):
                return exact
            self.reference, self.name = self.before, "the original in its own precision"
            self.rejected = bool(exact)
        return original

    def _evaluate_reference(self, feeds: Feeds) -> Outputs:
        """Outputs of the reference, or of the fallback if it fails; an empty list if both fail."""
        try:
            return self.reference(feeds)
        except NoReference:
            if self.fallback is None:
                return []
        (self.reference, self.name), self.fallback = self.fallback(), None
        return self._evaluate_reference(feeds)

    def _judge_outputs(
        self, label: str, exact: Outputs, originals: list[Outputs], rewritten: Outputs
    ) -> list[Judgement]:
        """One judgement for each output, from the errors of both graphs against `exact`."""
        return [
            self._judge(label, np.asarray(y), [np.asarray(one) for one in a], np.asarray(b))
            for y, b, *a in zip(exact, rewritten, *originals, strict=True)
        ]

    def _judge(
        self, label: str, exact: Array, originals: list[Array], rewritten: Array
    ) -> Judgement:
        original = originals[0]
        if rewritten.shape != original.shape or rewritten.dtype != original.dtype:
            reason = f"output is {rewritten.shape} {rewritten.dtype}, was {original.shape}"
            return np.inf, Equivalence("refuted", np.inf, worst_input=label, reason=reason)
        if exact.dtype.kind not in "f":
            if np.array_equal(original, rewritten):
                return 0.0, Equivalence("sampled", worst_input=label)
            return np.inf, Equivalence("refuted", worst_input=label, reason=NOT_FLOATS)
        lost = ~np.isfinite(rewritten) & np.isfinite(original) & np.isfinite(exact)
        if np.any(lost):
            reason = f"{np.count_nonzero(lost)} outputs are no longer finite"
            return np.inf, Equivalence("refuted", np.inf, worst_input=label, reason=reason)
        if label.startswith(EXTREME):  # elements that are not finite are not compared
            finite = np.all(np.isfinite([exact, rewritten, *originals]), axis=0)
            exact, rewritten = exact[finite], rewritten[finite]
            originals = [one[finite] for one in originals]
        sizes = np.abs(exact[np.isfinite(exact)])
        scale = float(np.max(sizes, initial=0.0)) or 1.0
        new = distance(rewritten, exact, scale)
        old = np.max([distance(one, exact, scale) for one in originals], axis=0)
        floor = self.roundoff * (UNREFERENCED if self.reference is self.before else 1)
        floor += DENORMAL * TINY.get(rewritten.dtype.name, 0.0) * self.roundoff / scale
        limits = (MAX_FACTOR * self.growth, RMS_FACTOR * self.growth)
        bounds = (limits[0] * max(old[0], floor), limits[1] * max(old[1], floor))
        excess = max(new[0] / bounds[0], new[1] / bounds[1])
        if excess > 1 and self.rejected:
            reason = "the original is too far from its own values in float64 to compare with"
            return excess, Equivalence("unknown", new[0], worst_input=label, reason=reason)
        verdict = "sampled" if excess <= 1 else "refuted"
        error, bound = float(old[0]), float(bounds[0])
        return excess, Equivalence(verdict, new[0], error, bound, label)

    def _keep(self, judgement: Judgement) -> None:
        """Make it `worst` if it is the worst so far."""
        excess, result = judgement
        if excess > self.excess:
            self.excess, self.worst = excess, result


def close(exact: Outputs, original: Outputs, most: float) -> bool:
    """Whether shapes are equal, and floats differ by at most `most` times the largest `exact`."""
    if [np.shape(y) for y in exact] != [np.shape(a) for a in original]:
        return False
    for y, a in zip(exact, original, strict=True):
        y, a = np.asarray(y), np.asarray(a)
        finite = np.isfinite(y) & np.isfinite(a) if y.dtype.kind == "f" else np.zeros(y.shape, bool)
        scale = float(np.max(np.abs(y[finite]), initial=0.0)) or 1.0
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
    """The number of products in the longest sum of a layer or pool."""
    return max((_products(node) for node in model.graph.all_nodes()), default=1)


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
