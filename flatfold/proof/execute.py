"""Run two graphs with ONNX Runtime, optimisation off, against a float64 reference.

With optimisation on, ONNX Runtime would fold the original for us and the comparison would prove
nothing. Accepted: max-norm error at most 8 times, and rms error at most 4 times, that of the
original or of one rounding of the output, whichever is more. A right rewrite is not as exact as
its original, whose weights are exact by definition: folded ones carry one rounding. Over 28 layers
of RepVGG-B0 that alone makes the rms 1.6 to 2.7 times the original's (112 inputs, two networks).
Where the longest sum of the rewritten graph is K' products and that of the original K, both limits
are sqrt(K' / K) times as high (`lengths`): sums that were several short ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from flatfold.errors import BuildError, InputError
from flatfold.proof.equivalence import Equivalence
from flatfold.proof.inputs import Feeds, InputSpec, draw, settings
from flatfold.proof.lengths import rounding_growth
from flatfold.proof.reference import NoReference, Outputs, Reference, onnx_reference
from flatfold.proof.region import ROUNDOFF
from flatfold.proof.runtime import PlainSession, plain_session, require_runnable

Array = npt.NDArray[Any]

MAX_FACTOR, RMS_FACTOR = 8.0, 4.0

# Without a reference the original's own error is not known: it is taken to be this many roundings.
UNREFERENCED = 64

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
        if not _close(again, original, self.roundoff**0.5):
            reason = "the original gives other outputs each time, so nothing can be compared"
            self._keep(np.inf, Equivalence("unknown", worst_input=label, reason=reason))
            return
        exact = self._exact(feeds, original)
        self.tried.append(label)
        for y, a, b in zip(exact, original, rewritten, strict=True):
            self._judge(label, np.asarray(y), np.asarray(a), np.asarray(b))

    def _exact(self, feeds: Feeds, original: Outputs) -> Outputs:
        """The reference's outputs; the original's own from where the reference fails or strays.

        A reference far from the original, not by rounding, understands some operator otherwise.
        """
        if self.reference is not self.before:
            exact = self._tried(feeds)
            if _close(exact, original, self.roundoff**0.5):
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

    def _judge(self, label: str, exact: Array, original: Array, rewritten: Array) -> None:
        if rewritten.shape != original.shape or rewritten.dtype != original.dtype:
            reason = f"output is {rewritten.shape} {rewritten.dtype}, was {original.shape}"
            self._keep(np.inf, Equivalence("refuted", np.inf, worst_input=label, reason=reason))
            return
        if exact.dtype.kind not in "f":
            same = bool(np.array_equal(original, rewritten))
            verdict = "sampled" if same else "refuted"
            self._keep(0.0 if same else np.inf, Equivalence(verdict, worst_input=label))
            return
        finite = np.abs(exact[np.isfinite(exact)])
        scale = float(np.max(finite, initial=0.0)) or 1.0
        old, new = _distance(original, exact, scale), _distance(rewritten, exact, scale)
        floor = self.roundoff * (UNREFERENCED if self.reference is self.before else 1)
        limits = (MAX_FACTOR * self.growth, RMS_FACTOR * self.growth)
        bounds = (limits[0] * max(old[0], floor), limits[1] * max(old[1], floor))
        excess = max(new[0] / bounds[0], new[1] / bounds[1])
        if excess > 1 and self.strayed:
            reason = "the original is too far from its own values in float64 to be compared with"
            self._keep(excess, Equivalence("unknown", new[0], worst_input=label, reason=reason))
            return
        verdict = "sampled" if excess <= 1 else "refuted"
        self._keep(excess, Equivalence(verdict, new[0], old[0], bounds[0], label))

    def _keep(self, excess: float, result: Equivalence) -> None:
        if excess > self.excess:
            self.excess, self.worst = excess, result


def _close(exact: Outputs, original: Outputs, most: float) -> bool:
    """Whether both have the same shapes, and their floats differ by at most `most` of the range."""
    if [np.shape(y) for y in exact] != [np.shape(a) for a in original]:
        return False
    for y, a in zip(exact, original, strict=True):
        y, a = np.asarray(y), np.asarray(a)
        finite = np.isfinite(y) if y.dtype.kind == "f" else np.zeros(y.shape, bool)
        scale = float(np.max(np.abs(y[finite]), initial=0.0)) or 1.0
        gap = np.abs(a[finite].astype(np.float64) - y[finite]) / scale
        if not np.max(gap, initial=0.0) <= most:
            return False
    return True


def _distance(y: Array, exact: Array, scale: float) -> tuple[float, float]:
    """(largest, root mean square) error relative to `scale`; none where both are the same NaN."""
    same = (y == exact) | (np.isnan(y) & np.isnan(exact))
    with np.errstate(invalid="ignore"):
        error = np.where(same, 0.0, np.abs(y.astype(np.float64) - exact) / scale)
    if error.size == 0:
        return 0.0, 0.0
    if not np.all(np.isfinite(error)):
        return np.inf, np.inf
    return float(error.max()), float(np.sqrt(np.mean(error**2)))


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
