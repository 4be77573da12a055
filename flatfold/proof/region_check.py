"""Check one change before it is made: both sides in float64 on the same random data.

With weights rounded once from float64, |y' - y| <= u * M elementwise (u the unit roundoff of the
graph's type, M the magnitude companion of the original region). An error beyond 1.01 u M is a wrong
rewrite, not rounding. The maps have the smallest size with every kind of border: outputs that read
the padding at the start, outputs that read it at the end, and outputs that read none, for every
residue modulo the stride.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from flatfold.errors import NotEquivalent
from flatfold.passes import Change, Decline
from flatfold.passes.remark import origins
from flatfold.proof.certificate import Entry
from flatfold.proof.cut_points.cones import Cone
from flatfold.proof.finite_field.identity_test import Uncertified, require_identity
from flatfold.proof.interpreter.convolution import Array
from flatfold.proof.interpreter.interpreter import evaluate
from flatfold.proof.interpreter.pair import Pair, Unsupported
from flatfold.proof.network.judge import MARGIN, ROUNDOFF, SPACING
from flatfold.proof.reduction.impulse import find_wrong_weight
from flatfold.proof.structure import structure_of
from flatfold.proof.trial_data import Trial, draw_trial, extents

# Added to the limit of a region with `border_rounded`: the bias of its border was rounded several
# times in the graph, and is taken to be that of the interior.
ROUNDED_BORDER = 4.0


@dataclass
class RegionChecks:
    """Checks each change that it is called with, and keeps an entry for the certificate.

    With `certifying`, it also tests whether each change is right by its algebra alone.
    """

    seed: int = 0
    certifying: bool = False
    entries: list[Entry] = field(default_factory=list)
    certified_structures: set[bytes] = field(default_factory=set)

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
        """Why changes are not certified, one text for each; none unless `certifying`."""
        entries = self.entries if self.certifying else []
        return [f"{entry.output}: {entry.doubt}" for entry in entries if entry.doubt]

    def __call__(self, *changes: Change) -> None:
        """Raise NotEquivalent if one of the changes is not the same function within rounding.

        They are made together: where one is declined, none of them is in the certificate.
        """
        numbered = enumerate(changes, self.regions)
        self.entries += [self._entry(change, number) for number, change in numbered]

    def _entry(self, change: Change, number: int) -> Entry:
        try:
            return self._checked(change, number)
        except Decline as why:
            why.change = change
            raise

    def _checked(self, change: Change, number: int) -> Entry:
        """The entry of a change, `number` in the certificate."""
        name = change.region.output.name or ""
        rng = np.random.default_rng([self.seed, number])
        trials = [draw_trial(change, extent, rng) for extent in extents(change)]
        ratio = max(_ratio(change, trial) for trial in trials)
        allowed = MARGIN + (ROUNDED_BORDER if change.region.border_rounded else 0.0)
        if ratio > allowed and change.region.border_rounded and math.isfinite(ratio):
            raise Decline("BORDER-BIAS", "the bias at the border is rounded too coarsely")
        if not ratio <= allowed:
            weight = _wrong_weight_text(change, trials[0])
            error = f"error {ratio:.3g} u*M, allowed {allowed}"
            raise NotEquivalent(
                f"{change.rewrite} changed {name}: {error}{weight}",
                where=_node_names(change),
                hint="this is a bug in flatfold; --skip the rewrite, and please report the model",
            )
        seed = self.seed + number
        doubt = self._doubt(change, trials, seed) if self.certifying else "not asked for"
        new_names = tuple(node.name or "" for node in change.replacement.nodes)
        replaced = origins(change.region.nodes)
        certified, bit_exact = not doubt, change.bit_exact and ratio == 0
        return Entry(
            change.rewrite, name, replaced, new_names, seed, ratio, certified, doubt, bit_exact
        )

    def _doubt(self, change: Change, trials: Sequence[Trial], seed: int) -> str:
        """Why the change is not certified; empty if it is.

        The identity test is about all weights at once, so that of the same change in another place
        need not be repeated.
        """
        structure = structure_of(change)
        if structure in self.certified_structures:
            return ""
        try:
            require_identity(change, trials, seed)
        except Uncertified as why:
            return str(why)
        if structure is not None:
            self.certified_structures.add(structure)
        return ""


def _wrong_weight_text(change: Change, trial: Trial) -> str:
    """The wrong weight, if impulses show one: "; output channel 3, input channel 1, ..."."""
    sources = tuple((value, value) for value in trial.feeds)
    ends = change.region.output, change.replacement.output
    cone = Cone(*ends, sources, trial.nodes, (*trial.shared, *change.replacement.nodes))
    weight = find_wrong_weight(cone, {value: pair.y.shape for value, pair in trial.feeds.items()})
    return f"; {weight}" if weight is not None else ""


def _require_same_ranges(nodes: Sequence[ir.Node], values: Mapping[ir.Value, Pair]) -> None:
    """Decline where a Slice meets an axis of another size than the model's: it means another cut.

    [0:1] is the whole of an axis of one pixel, and a third of one of three.
    """
    for node in nodes:
        data = node.inputs[0] if node.op_type == "Slice" else None
        if data is None or data.shape is None or data not in values:
            continue
        listed = node.inputs[3] if len(node.inputs) > 3 else None
        given = None if listed is None else ir.convenience.get_const_tensor(listed)
        drawn = values[data].y.shape
        axes = range(len(drawn)) if given is None else given.numpy().reshape(-1).tolist()
        for axis in axes:
            size = data.shape[int(axis)]
            if isinstance(size, int) and axis % len(drawn) and size != drawn[int(axis)]:
                found = f"{data.name} has {size} along axis {axis}, the check {drawn[int(axis)]}"
                raise Decline("UNPROVED", f"no size is known at which a Slice is the same: {found}")


def _ratio(change: Change, trial: Trial) -> float:
    """Worst |y' - y| / (u M + float64 rounding) over all elements."""
    region, replacement = change.region, change.replacement
    try:
        values = evaluate(trial.nodes, trial.feeds)
        _require_same_ranges(region.nodes, values)
        before = values[region.output]
        after = evaluate((*trial.shared, *replacement.nodes), trial.feeds)[replacement.output]
    except Unsupported as what:
        raise Decline("UNPROVED", f"the check does not know {what}") from None
    except (ValueError, IndexError, MemoryError):  # some nodes run only at the model's own sizes
        raise Decline("UNPROVED", "the check cannot run it at a small size") from None
    if before.y.shape != after.y.shape:  # a Slice may take all of an axis at the model's size alone
        raise Decline("UNPROVED", "the two sides have other shapes at the size of the check")
    largest = max(float(np.max(pair.m, initial=0.0)) for pair in trial.feeds.values())
    lost = _lost_below_normal(change, largest)
    return worst_ratio(before, after.y, region.output.dtype, _rounding_count(change), lost)


def _lost_below_normal(change: Change, largest: float) -> float:
    """The most that rounding of weights below the smallest normal number changes an output."""
    dtype = change.region.output.dtype
    shapes = [term.stencil.geometry for term in change.region.form.terms]
    products = sum(g.weights // g.outputs for g in shapes) + 1
    return SPACING.get(dtype.name if dtype is not None else "", 0.0) / 2 * products * largest


def _rounding_count(change: Change) -> int:
    """Roundings of one output in float64: products that are summed, and four for each node."""
    shapes = [term.stencil.geometry for term in change.region.form.terms]
    return sum(g.weights // g.outputs for g in shapes) + 4 * len(change.region.nodes)


def _node_names(change: Change, most: int = 5) -> str:
    names = [node.name or "?" for node in change.region.nodes]
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def worst_ratio(
    before: Pair, after: Array, dtype: ir.DataType | None, length: int, lost: float = 0.0
) -> float:
    """max |after - y| / (u M + rounding of `length` products in float64 + `lost`)."""
    u = ROUNDOFF[dtype.name if dtype is not None else "FLOAT"]
    error = np.abs(after - before.y)
    bound = (u + (length + 16) * 2.0**-53) * before.m + lost
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(error > 0, error / bound, 0.0)
    return float(np.max(ratio, initial=0.0)) if np.all(np.isfinite(after)) else math.inf
