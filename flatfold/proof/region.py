"""Check one change before it is made: both sides in float64 on the same random data.

With weights rounded once from float64, |y' - y| <= u * M elementwise (u the unit roundoff of the
graph's type, M the magnitude companion of the original region). Anything beyond 1.01 u M is a wrong
rewrite, not rounding. The data is the smallest extent that holds every border class: the outputs
that see the padding at the start, at the end, and some that see none, for every stride residue.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from flatfold.errors import NotEquivalent
from flatfold.passes import Change
from flatfold.passes.affine import Term
from flatfold.passes.geometry import Decline
from flatfold.proof.evaluate import Array, Pair, Unsupported, evaluate
from flatfold.proof.extent import Extent, extents

ROUNDOFF = {"DOUBLE": 2.0**-53, "FLOAT": 2.0**-24, "FLOAT16": 2.0**-11, "BFLOAT16": 2.0**-8}
MARGIN = 1.01

# Operators that are linear on some inputs only: their region is run on inputs that can occur.
RANGED = ("Clip", "LeakyRelu", "PRelu", "Relu")
MAKING: dict[str, Callable[[Array], Array]] = {
    "Abs": np.abs,
    "Clip": np.asarray,
    "Exp": np.exp,
    "HardSigmoid": lambda x: np.clip(0.2 * x + 0.5, 0, 1),
    "Relu": lambda x: np.maximum(x, 0),
    "Sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "Softmax": lambda x: 1 / (1 + np.exp(-x)),
    "Softplus": lambda x: np.log1p(np.exp(x)),
    "Sqrt": np.abs,
    "Tanh": np.tanh,
}
CARRYING = (
    "AveragePool",
    "Flatten",
    "Gather",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "Identity",
    "MaxPool",
    "ReduceMean",
    "Reshape",
    "Slice",
    "Split",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
)


@dataclass
class RegionChecks:
    """Checks changes and keeps the worst ratio |y' - y| / (u M) seen so far."""

    seed: int = 0
    regions: int = 0
    worst: float = 0.0
    where: str = ""
    ratios: list[float] = field(default_factory=list)

    def __call__(self, change: Change) -> None:
        """Raise NotEquivalent if the change is not the same function within rounding."""
        name = change.region.output.name or ""
        rng = np.random.default_rng([self.seed, self.regions])
        ratio = max(_ratio(change, extent, rng) for extent in extents(change))
        self.regions += 1
        self.ratios.append(ratio)
        if ratio > self.worst:
            self.worst, self.where = ratio, name
        if not ratio <= MARGIN:
            raise NotEquivalent(
                f"{change.rewrite} changed {name}: error {ratio:.3g} u*M, at most {MARGIN} allowed",
                where=_named(change),
                hint="this is a bug in flatfold; --skip the rewrite, and please report the model",
            )


def _ratio(change: Change, extent: Extent, rng: np.random.Generator) -> float:
    """Worst |y' - y| / (u M + float64 rounding) over all elements."""
    region, lowered = change.region, change.lowered
    feeds: dict[ir.Value, Pair] = {}
    ranged = any(node.op_type in RANGED for node in region.nodes)
    for term in region.form.terms:
        shape = data_shape(term, extent[term.source])
        x = rng.standard_normal(shape)
        if ranged:
            x = within_range(term.source, x)
        feeds.setdefault(term.source, Pair(x, np.abs(x)))
    try:
        before = evaluate(reversed(region.nodes), feeds)[region.output]
        after = evaluate(lowered.nodes, feeds)[lowered.output]
    except Unsupported as what:
        raise Decline("UNPROVED", f"the check does not know {what}") from None
    if before.y.shape != after.y.shape:
        return math.inf
    return worst_ratio(before, after.y, region.output.dtype, _operations(change))


def data_shape(term: Term, sizes: tuple[int, ...]) -> tuple[int, ...]:
    """[1, C, sizes] for a stencil with spatial axes; [1, 2, .., C] for a matrix."""
    shape, channels = term.source.shape, term.stencil.geometry.inputs
    if sizes or shape is None or shape.rank() == 2:
        return (1, channels, *sizes)
    return (1, *(2,) * (shape.rank() - 2), channels)


def within_range(source: ir.Value, x: Array) -> Array:
    """Values that `source` may have: what the activation that makes them makes of `x`."""
    node = source.producer()
    while node is not None and node.op_type in CARRYING and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    if node is None or node.op_type not in MAKING:
        return x
    if node.op_type != "Clip":
        return MAKING[node.op_type](x)
    limits = [ir.convenience.get_const_tensor(v) if v is not None else None for v in node.inputs]
    low, high = (t.numpy() if t is not None else None for t in [*limits, None, None][1:3])
    return x if low is None and high is None else np.clip(10 * x, low, high)


def _operations(change: Change) -> int:
    """Roundings that a value may go through in float64: products summed, and nodes passed."""
    shapes = [term.stencil.geometry for term in change.region.form.terms]
    return sum(g.weights // g.outputs for g in shapes) + 4 * len(change.region.nodes)


def _named(change: Change, most: int = 5) -> str:
    names = [node.name or "?" for node in change.region.nodes]
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def worst_ratio(before: Pair, after: Array, dtype: ir.DataType | None, length: int) -> float:
    """max |after - y| / (u M), float64's own rounding over `length` products allowed for."""
    u = ROUNDOFF[dtype.name if dtype is not None else "FLOAT"]
    error = np.abs(after - before.y)
    bound = (u + (length + 16) * 2.0**-53) * before.m
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(error > 0, error / bound, 0.0)
    return float(np.max(ratio, initial=0.0)) if np.all(np.isfinite(after)) else math.inf
