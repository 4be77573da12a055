"""Run two graphs with ONNX Runtime, optimisation off, against a float64 reference.

With optimisation on, ONNX Runtime would fold the original for us and the comparison would prove
nothing. Accepted: max-norm error at most 8 times, and rms error at most 4 times, that of the
original or of one rounding of the output, whichever is more. A right rewrite is not as exact as
its original, whose weights are exact by definition: folded ones carry one rounding. Over 28 layers
of RepVGG-B0 that alone makes the rms 1.6 to 2.7 times the original's (112 inputs, two networks).
Where the longest sum of the rewritten graph is K' products and that of the original K, both limits
are sqrt(K' / K) times as high (`lengths`): sums that were several short ones.

On very large inputs a gate may magnify roundings until few digits are right, and a single error of
the original tells little of what another order of sums gives. There its error is the worst of some
that it makes on inputs which differ in their last digits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from flatfold.errors import BuildError, InputError
from flatfold.proof.distance import close, distance
from flatfold.proof.equivalence import Equivalence
from flatfold.proof.inputs import EXTREME, Feeds, InputSpec, draw, nudged, settings
from flatfold.proof.lengths import rounding_growth
from flatfold.proof.reference import NoReference, Outputs, Reference, onnx_reference
from flatfold.proof.roundoff import ROUNDOFF
from flatfold.proof.runtime import PlainSession, plain_session, require_runnable

Array = npt.NDArray[Any]

MAX_FACTOR, RMS_FACTOR = 8.0, 4.0

# Where it keeps fewer than half of its digits, or the two are apart on the extreme: so many more.
NUDGES = 16

# Without a reference the original's own error is not known: it is taken to be this many roundings.
UNREFERENCED = 64

# Below the smallest normal number roundings are absolute; so many of them are allowed for.
DENORMAL = 1024
TINY = {"float16": 2.0**-14, "float32": 2.0**-126, "float64": 2.0**-1022}

# Above this many values the reference, which keeps them all, is not asked: 2 GiB in float64.
MOST_REFERENCED = 1 << 28

# Above this many multiply-accumulates an input, or values, only the first inputs are run.
HEAVY_MACS, HEAVY_ELEMENTS, HEAVY_INPUTS = 6_000_000_000, 1 << 27, 3


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

    def try_input(self, label: str, feeds: Feeds) -> None:
        """Run all three on `feeds`; keep the numbers if they are the worst so far."""
        original = self.before(feeds)
        try:
            rewritten = self.after(feeds)
        except BuildError as why:
            self.tried.append(label)
            reason = f"the other graph cannot be run on it: {why.cause}"
            self._keep(np.inf, Equivalence("refuted", np.inf, worst_input=label, reason=reason))
            return
        again = original if self.tried else self.before(feeds)
        if not close(again, original, self.roundoff**0.5):
            reason = "the original gives other outputs each time, so nothing can be compared"
            self._keep(np.inf, Equivalence("unknown", worst_input=label, reason=reason))
            return
        extreme = label.startswith(EXTREME)
        exact = self._exact(feeds, original, extreme)
        originals = [original]
        apart = extreme and not close(original, rewritten, MAX_FACTOR * self.roundoff)
        if apart or not close(exact, original, self.roundoff**0.5):
            originals += [self.before(nudged(feeds, seed)) for seed in range(NUDGES)]
        self.tried.append(label)
        for y, b, *a in zip(exact, rewritten, *originals, strict=True):
            self._judge(label, np.asarray(y), [np.asarray(one) for one in a], np.asarray(b))

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

    def _judge(self, label: str, exact: Array, originals: list[Array], rewritten: Array) -> None:
        """Keep how far from `exact` the rewritten graph is, and the original on equal terms."""
        original = originals[0]
        if rewritten.shape != original.shape or rewritten.dtype != original.dtype:
            reason = f"output is {rewritten.shape} {rewritten.dtype}, was {original.shape}"
            self._keep(np.inf, Equivalence("refuted", np.inf, worst_input=label, reason=reason))
            return
        if exact.dtype.kind not in "f":
            same = bool(np.array_equal(original, rewritten))
            verdict = "sampled" if same else "refuted"
            self._keep(0.0 if same else np.inf, Equivalence(verdict, worst_input=label))
            return
        lost = ~np.isfinite(rewritten) & np.isfinite(original) & np.isfinite(exact)
        if np.any(lost):
            reason = f"{np.count_nonzero(lost)} outputs are no longer finite"
            self._keep(np.inf, Equivalence("refuted", np.inf, worst_input=label, reason=reason))
            return
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
            self._keep(excess, Equivalence("unknown", new[0], worst_input=label, reason=reason))
            return
        verdict = "sampled" if excess <= 1 else "refuted"
        self._keep(excess, Equivalence(verdict, new[0], float(old[0]), float(bounds[0]), label))

    def _keep(self, excess: float, result: Equivalence) -> None:
        if excess > self.excess:
            self.excess, self.worst = excess, result


def specs_of(model: ir.Model) -> list[InputSpec]:
    """The inputs a caller feeds. Raises InputError where type or rank is unknown."""
    specs = []
    for value in model.graph.inputs:
        if value.is_initializer():
            continue
        if value.shape is None or value.dtype is None:
            raise InputError(f"input {value.name} has no type or rank", hint="give its shape")
        dims = tuple(dim if isinstance(dim, int) else None for dim in value.shape)
        specs.append(InputSpec(value.name or "", value.dtype.numpy().name, dims))
    return specs


def compare(
    original: ir.Model,
    rewritten: ir.Model,
    *,
    reference: Reference | None = None,
    macs: int = 0,
    seed: int = 0,
    progress: Callable[[str], None] = lambda _: None,
) -> Equivalence:
    """Verdict `sampled` or `refuted`; a difference is never an exception.

    Raises InputError for a graph that cannot be run at all.

    `reference` computes the original in float64 (a PyTorch module, say); without one the ONNX
    reference evaluator does. `macs`, for one input, limits how many inputs are run.
    """
    specs = specs_of(original)
    size = max(require_runnable(model) for model in (original, rewritten))
    heavy = macs > HEAVY_MACS or size > HEAVY_ELEMENTS
    before, after = (
        plain_session(original, "the graph"),
        plain_session(rewritten, "the other graph"),
    )
    if reference is None and size > MOST_REFERENCED:
        reference = before
    judge, name = _judge_of(original, before, reference)
    dtype = original.graph.outputs[0].dtype
    roundoff = ROUNDOFF.get(dtype.name if dtype is not None else "FLOAT", 2.0**-24)
    growth = rounding_growth(original, rewritten)
    comparison = Comparison(before, after, judge, name, roundoff, growth)
    if reference is not None:
        comparison.other = lambda: _judge_of(original, before, None)
    for number, shapes in enumerate(settings(specs)):
        for count, (kind, feeds) in enumerate(draw(specs, shapes, seed + number)):
            if heavy and count >= HEAVY_INPUTS:
                break
            label = f"{kind} {'x'.join(map(str, next(iter(shapes.values()))))}"
            progress(label)
            try:
                if not _runs(before, feeds):
                    break  # the original does not accept this size
                comparison.try_input(label, feeds)
            except MemoryError as error:
                raise InputError(
                    f"not enough memory to run the graph on {label}",
                    hint='export it for a smaller input, or leave the proof out with verify="off"',
                ) from error
    if comparison.worst is None:
        raise InputError(
            "the original graph could not be run on any input tried",
            hint="check that ONNX Runtime runs the model, or fix its open sizes",
        )
    tried = tuple(comparison.tried)
    return replace(comparison.worst, inputs=tried, reference=comparison.name)


def _runs(session: PlainSession, feeds: Feeds) -> bool:
    try:
        session(feeds)
    except BuildError:
        return False
    return True


def _judge_of(
    original: ir.Model, before: PlainSession, reference: Reference | None
) -> tuple[Reference, str]:
    if reference is before:
        return before, "the original in its own precision"
    if reference is not None:
        return reference, "the module in float64"
    try:
        return onnx_reference(original), "the ONNX reference in float64"
    except NoReference:
        return before, "the original in its own precision"
