"""Check one change before it is made: both sides in float64 on the same random data.

With weights rounded once from float64, |y' - y| <= u * M elementwise (u the unit roundoff of the
graph's type, M the magnitude companion of the original region). Anything beyond 1.01 u M is a wrong
rewrite, not rounding. The data is the smallest extent that holds every border class: the outputs
that see the padding at the start, at the end, and some that see none, for every stride residue.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from flatfold.errors import NotEquivalent
from flatfold.passes import Change
from flatfold.passes.decline import Decline
from flatfold.passes.remark import origins
from flatfold.proof.certificate import Entry
from flatfold.proof.cut_points.cones import Cone
from flatfold.proof.finite_field.identity_test import Uncertified, require_identity
from flatfold.proof.interpreter.convolution import Array
from flatfold.proof.interpreter.interpreter import evaluate
from flatfold.proof.interpreter.pair import Pair, Unsupported
from flatfold.proof.network.judge import MARGIN, ROUNDOFF, SPACING
from flatfold.proof.reduction.impulse import find_wrong_weight
from flatfold.proof.trial_data import Trial, extents, trial

EVENED = 4.0  # a number that the graph has rounded several times stands for the exact one


@dataclass
class RegionChecks:
    """Checks changes and keeps what it found of each.

    With `certifying`, also whether each is right by its algebra alone.
    """

    seed: int = 0
    certifying: bool = False
    entries: list[Entry] = field(default_factory=list)

    @property
    def regions(self) -> int:
        return len(self.entries)

    @property
    def worst(self) -> float:
        """The largest |y' - y| / (u M)."""
        return max((entry.ratio for entry in self.entries), default=0.0)

    @property
    def certified(self) -> int:
        return sum(entry.certified for entry in self.entries)

    @property
    def doubts(self) -> list[str]:
        asked = self.entries if self.certifying else []
        return [f"{entry.output}: {entry.doubt}" for entry in asked if entry.doubt]

    def __call__(self, change: Change) -> None:
        """Raise NotEquivalent if the change is not the same function within rounding."""
        name = change.region.output.name or ""
        rng = np.random.default_rng([self.seed, self.regions])
        trials = [trial(change, extent, rng) for extent in extents(change)]
        ratio = max(_ratio(change, given) for given in trials)
        allowed = MARGIN + (EVENED if change.region.border_rounded else 0.0)
        if ratio > allowed and change.region.border_rounded and math.isfinite(ratio):
            raise Decline("BORDER-BIAS", "what is written on the border is rounded too coarsely")
        if not ratio <= allowed:
            found = _wrong_weight(change, trials[0])
            raise NotEquivalent(
                f"{change.rewrite} changed {name}: error {ratio:.3g} u*M, allowed {allowed}{found}",
                where=_named(change),
                hint="this is a bug in flatfold; --skip the rewrite, and please report the model",
            )
        seed = self.seed + self.regions
        doubt = _doubt(change, trials, seed) if self.certifying else "not asked for"
        made = tuple(node.name or "" for node in change.replacement.nodes)
        replaced = origins(change.region.nodes)
        entry = Entry(change.rewrite, name, replaced, made, seed, ratio, not doubt, doubt)
        self.entries.append(entry)


def _wrong_weight(change: Change, given: Trial) -> str:
    """Which weight it is, if impulses can tell: "; output channel 3, input channel 1, ..."."""
    sources = tuple((value, value) for value in given.feeds)
    ends = change.region.output, change.replacement.output
    cone = Cone(*ends, sources, given.nodes, tuple(change.replacement.nodes))
    found = find_wrong_weight(cone, {value: pair.y.shape for value, pair in given.feeds.items()})
    return f"; {found}" if found is not None else ""


def _doubt(change: Change, trials: Sequence[Trial], seed: int) -> str:
    """Why the change is not certified; empty if it is."""
    try:
        require_identity(change, trials, seed)
    except Uncertified as why:
        return str(why)
    return ""


def _ratio(change: Change, given: Trial) -> float:
    """Worst |y' - y| / (u M + float64 rounding) over all elements."""
    region, lowered = change.region, change.replacement
    try:
        before = evaluate(given.nodes, given.feeds)[region.output]
        after = evaluate(lowered.nodes, given.feeds)[lowered.output]
    except Unsupported as what:
        raise Decline("UNPROVED", f"the check does not know {what}") from None
    except (ValueError, IndexError, MemoryError):  # it may fit only the sizes of the real model
        raise Decline("UNPROVED", "the check cannot run it at a small size") from None
    if before.y.shape != after.y.shape:
        return math.inf
    largest = max(float(np.max(pair.m, initial=0.0)) for pair in given.feeds.values())
    lost = _lost(change, largest)
    return worst_ratio(before, after.y, region.output.dtype, _operations(change), lost)


def _lost(change: Change, largest: float) -> float:
    """What weights below the smallest normal number may lose to rounding, added up."""
    dtype = change.region.output.dtype
    shapes = [term.stencil.geometry for term in change.region.form.terms]
    products = sum(g.weights // g.outputs for g in shapes) + 1
    return SPACING.get(dtype.name if dtype is not None else "", 0.0) / 2 * products * largest


def _operations(change: Change) -> int:
    """Roundings that a value may go through in float64: products summed, and nodes passed."""
    shapes = [term.stencil.geometry for term in change.region.form.terms]
    return sum(g.weights // g.outputs for g in shapes) + 4 * len(change.region.nodes)


def _named(change: Change, most: int = 5) -> str:
    names = [node.name or "?" for node in change.region.nodes]
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def worst_ratio(
    before: Pair, after: Array, dtype: ir.DataType | None, length: int, lost: float = 0.0
) -> float:
    """max |after - y| / (u M), float64's own rounding over `length` products allowed for."""
    u = ROUNDOFF[dtype.name if dtype is not None else "FLOAT"]
    error = np.abs(after - before.y)
    bound = (u + (length + 16) * 2.0**-53) * before.m + lost
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(error > 0, error / bound, 0.0)
    return float(np.max(ratio, initial=0.0)) if np.all(np.isfinite(after)) else math.inf
