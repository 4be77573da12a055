"""Outputs of two graphs on one input, judged by a float64 reference.

Accepted: max-norm error at most 8 times, and rms error at most 4 times, that of the original or of
one rounding of the output, whichever is more. A right rewrite is not as exact as its original,
whose weights are exact by definition: folded ones carry one rounding. Over 28 layers of RepVGG-B0
that alone makes the rms 1.6 to 2.7 times the original's (112 inputs, two networks). Where the
longest sum of the rewritten graph is K' products and that of the original K, both limits are
sqrt(K' / K) times as high (`lengths`): sums that were several short ones.

On very large inputs a gate may magnify roundings until few digits are right, and a single error of
the original tells little of what another order of sums gives. There a rewrite that is further off
is compared with the worst of some errors the original makes on inputs whose last digits differ.
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
from flatfold.proof.network.inputs import EXTREME, Feeds, nudged
from flatfold.proof.network.reference import NoReference, Outputs, Reference

ROUNDOFF = {"DOUBLE": 2.0**-53, "FLOAT": 2.0**-24, "FLOAT16": 2.0**-11, "BFLOAT16": 2.0**-8}
SPACING = {"FLOAT16": 2.0**-24, "FLOAT": 2.0**-149, "BFLOAT16": 2.0**-133}  # below normal
MARGIN = 1.01


def rounding_growth(original: ir.Model, rewritten: ir.Model) -> float:
    """By how much more, at least 1, the rewritten graph may round (Higham and Mary 2019).

    Layers that were composed add up in one long sum what were several short ones.
    """
    return math.sqrt(max(longest_sum(rewritten) / longest_sum(original), 1.0))


def longest_sum(model: ir.Model) -> int:
    """Products in the longest sum of a layer or pool."""
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


Array = npt.NDArray[Any]


def close(exact: Outputs, original: Outputs, most: float) -> bool:
    """Whether both have the same shapes, and their floats differ by at most `most` of the range."""
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
    """(largest, root mean square) error relative to `scale`; none where both are the same NaN."""
    same = (y == exact) | (np.isnan(y) & np.isnan(exact))
    with np.errstate(invalid="ignore"):
        error = np.where(same, 0.0, np.abs(y.astype(np.float64) - exact) / scale)
    if error.size == 0:
        return 0.0, 0.0
    if not np.all(np.isfinite(error)):
        return np.inf, np.inf
    return float(error.max()), float(np.sqrt(np.mean(error**2)))


Finding = tuple[float, Equivalence]
"""How many times the limit an error is, and what that means."""

MAX_FACTOR, RMS_FACTOR = 8.0, 4.0

NOT_FLOATS = "outputs that are no floating-point numbers differ"

NUDGES = 16  # inputs with other last digits, where one error of the original is not enough

# Without a reference the original's own error is not known: it is taken to be this many roundings.
UNREFERENCED = 64

# Below the smallest normal number roundings are absolute; so many of them are allowed for.
DENORMAL = 1024
TINY = {"float16": 2.0**-14, "float32": 2.0**-126, "float64": 2.0**-1022}


@dataclass
class Comparison:
    """Two graphs, a reference, and the worst that was seen so far."""

    before: Reference
    after: Callable[[Feeds], Outputs]
    reference: Reference
    name: str
    roundoff: float
    growth: float = 1.0
    tried: list[str] = field(default_factory=list)
    worst: Equivalence | None = None
    excess: float = -1.0
    strayed: bool = False
    other: Callable[[], tuple[Reference, str]] | None = None

    def try_input(self, label: str, feeds: Feeds, original: Outputs) -> None:
        """Compare what the others make of `feeds` with what the `original` graph made of it."""
        try:
            rewritten = self.after(feeds)
        except BuildError as why:
            self.tried.append(label)
            reason = f"the other graph cannot be run on it: {why.cause}"
            self._keep((np.inf, Equivalence("refuted", np.inf, worst_input=label, reason=reason)))
            return
        again = original if self.tried else self.before(feeds)
        if not close(again, original, self.roundoff**0.5):
            reason = "the original gives other outputs each time, so nothing can be compared"
            self._keep((np.inf, Equivalence("unknown", worst_input=label, reason=reason)))
            return
        extreme = label.startswith(EXTREME)
        exact = self._exact(feeds, original, extreme)
        self.tried.append(label)
        found = self._judged(label, exact, [original], rewritten)
        if extreme and any(excess > 1 for excess, _ in found):
            others = [self.before(nudged(feeds, seed)) for seed in range(NUDGES)]
            found = self._judged(label, exact, [original, *others], rewritten)
        for one in found:
            self._keep(one)

    def _exact(self, feeds: Feeds, original: Outputs, extreme: bool) -> Outputs:
        """The reference's outputs; the original's own from where the reference fails or strays.

        A reference far from the original, not by rounding, understands some operator otherwise; on
        `extreme` inputs it is by rounding.
        """
        if self.reference is not self.before:
            exact = self._tried(feeds)
            if close(exact, original, np.inf if extreme else self.roundoff**0.5):
                return exact
            self.reference, self.name = self.before, "the original in its own precision"
            self.strayed = bool(exact)
        return original

    def _tried(self, feeds: Feeds) -> Outputs:
        """The reference's outputs, of the other one if the first fails; none if both do."""
        try:
            return self.reference(feeds)
        except NoReference:
            if self.other is None:
                return []
        (self.reference, self.name), self.other = self.other(), None
        return self._tried(feeds)

    def _judged(
        self, label: str, exact: Outputs, originals: list[Outputs], rewritten: Outputs
    ) -> list[Finding]:
        """Of each output: how far the rewritten graph is from `exact`, and the original."""
        return [
            self._judge(label, np.asarray(y), [np.asarray(one) for one in a], np.asarray(b))
            for y, b, *a in zip(exact, rewritten, *originals, strict=True)
        ]

    def _judge(self, label: str, exact: Array, originals: list[Array], rewritten: Array) -> Finding:
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
        if label.startswith(EXTREME):  # what was not finite may be anything now
            kept = np.all(np.isfinite([exact, rewritten, *originals]), axis=0)
            exact, rewritten = exact[kept], rewritten[kept]
            originals = [one[kept] for one in originals]
        finite = np.abs(exact[np.isfinite(exact)])
        scale = float(np.max(finite, initial=0.0)) or 1.0
        new = distance(rewritten, exact, scale)
        old = np.max([distance(one, exact, scale) for one in originals], axis=0)
        floor = self.roundoff * (UNREFERENCED if self.reference is self.before else 1)
        floor += DENORMAL * TINY.get(rewritten.dtype.name, 0.0) * self.roundoff / scale
        limits = (MAX_FACTOR * self.growth, RMS_FACTOR * self.growth)
        bounds = (limits[0] * max(old[0], floor), limits[1] * max(old[1], floor))
        excess = max(new[0] / bounds[0], new[1] / bounds[1])
        if excess > 1 and self.strayed:
            reason = "the original is too far from its own values in float64 to be compared with"
            return excess, Equivalence("unknown", new[0], worst_input=label, reason=reason)
        verdict = "sampled" if excess <= 1 else "refuted"
        error, bound = float(old[0]), float(bounds[0])
        return excess, Equivalence(verdict, new[0], error, bound, label)

    def _keep(self, finding: Finding) -> None:
        """Remember what was found if it is the worst so far."""
        excess, result = finding
        if excess > self.excess:
            self.excess, self.worst = excess, result
