"""Check one change before it is made: both sides in float64 on the same random data.

With weights rounded once from float64, |y' - y| <= u * M elementwise (u the unit roundoff of the
graph's type, M the magnitude companion of the original region). Anything beyond 1.01 u M is a wrong
rewrite, not rounding. The data is the smallest extent that holds every border class: the outputs
that see the padding at the start, at the end, and some that see none, for every stride residue.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from flatfold.errors import NotEquivalent
from flatfold.passes import Change, virtual
from flatfold.passes.affine import Term
from flatfold.passes.geometry import Decline
from flatfold.proof.evaluate import Array, Pair, Unsupported, evaluate
from flatfold.proof.extent import Extent, extents

ROUNDOFF = {"DOUBLE": 2.0**-53, "FLOAT": 2.0**-24, "FLOAT16": 2.0**-11, "BFLOAT16": 2.0**-8}
SPACING = {"FLOAT16": 2.0**-24, "FLOAT": 2.0**-149, "BFLOAT16": 2.0**-133}  # below normal
MARGIN = 1.01
EVENED = 4.0  # a number that the graph has rounded several times stands for the exact one
MOST_ELEMENTS = 1 << 25  # of one value; a kernel of 31 x 31 on a thousand channels has a tenth
OPEN = 3  # pixels along an axis of which no size is known

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

    def __call__(self, change: Change) -> None:
        """Raise NotEquivalent if the change is not the same function within rounding."""
        name = change.region.output.name or ""
        rng = np.random.default_rng([self.seed, self.regions])
        ratio = max(_ratio(change, extent, rng) for extent in extents(change))
        allowed = MARGIN + (EVENED if change.region.evened else 0.0)
        if ratio > allowed and change.region.evened and math.isfinite(ratio):
            raise Decline("BORDER-BIAS", "what is written on the border is rounded too coarsely")
        self.regions += 1
        self.worst = max(self.worst, ratio)
        if not ratio <= allowed:
            raise NotEquivalent(
                f"{change.rewrite} changed {name}: error {ratio:.3g} u*M, allowed {allowed}",
                where=_named(change),
                hint="this is a bug in flatfold; --skip the rewrite, and please report the model",
            )


def _ratio(change: Change, extent: Extent, rng: np.random.Generator) -> float:
    """Worst |y' - y| / (u M + float64 rounding) over all elements."""
    region, lowered = change.region, change.lowered
    feeds: dict[ir.Value, Pair] = {}
    ranged = any(node.op_type in RANGED for node in region.nodes)
    for term in region.form.terms:
        shape = data_shape(term, extent[term.source], region.nodes)
        source = virtual.base(term.source)
        out = [size or 1 for size in term.stencil.geometry.output_sizes(extent[term.source])]
        drawn = base_shape(term.source, shape)
        if max(math.prod(drawn), term.stencil.geometry.outputs * math.prod(out)) > MOST_ELEMENTS:
            raise Decline("UNPROVED", "its padding makes it too large to check")
        x = rng.standard_normal(drawn)
        if ranged:
            x *= np.where(rng.random(x.shape) < 0.5, 1.0, _reach(region.nodes))
            x = within_range(source, x)
        feeds.setdefault(source, Pair(x, np.abs(x)))
    feeds |= _repeated(region.nodes, feeds)
    nodes = [*_makers(region.nodes, feeds), *reversed(region.nodes)]
    try:
        before = evaluate(nodes, feeds)[region.output]
        after = evaluate(lowered.nodes, feeds)[lowered.output]
    except Unsupported as what:
        raise Decline("UNPROVED", f"the check does not know {what}") from None
    except (
        ValueError,
        IndexError,
        MemoryError,
    ):  # an operator that fits only the sizes of the real model
        raise Decline("UNPROVED", "the check cannot run it at a small size") from None
    if before.y.shape != after.y.shape:
        return math.inf
    largest = max(float(np.max(pair.m, initial=0.0)) for pair in feeds.values())
    lost = _lost(change, largest)
    return worst_ratio(before, after.y, region.output.dtype, _operations(change), lost)


def _makers(nodes: Iterable[ir.Node], feeds: Mapping[ir.Value, Pair]) -> list[ir.Node]:
    """What computes the other values that the region reads, straight from the feeds."""
    makers = [value.producer() for value in _read_besides(nodes, feeds)]
    return [n for n in makers if n is not None and n.inputs and n.inputs[0] in feeds]


def _read_besides(nodes: Iterable[ir.Node], feeds: Mapping[ir.Value, Pair]) -> set[ir.Value]:
    """Values that the region reads and neither makes nor is fed."""
    read = {value for node in nodes for value in node.inputs if value is not None}
    return read - {value for node in nodes for value in node.outputs} - set(feeds)


def _repeated(nodes: Iterable[ir.Node], feeds: Mapping[ir.Value, Pair]) -> dict[ir.Value, Pair]:
    """Constants that are repeated for every image, of one image."""
    found = {}
    for value in _read_besides(nodes, feeds):
        node = value.producer()
        tensor = None
        if node is not None and (node.op_type, node.domain) == ("Expand", "") and node.inputs[0]:
            tensor = ir.convenience.get_const_tensor(node.inputs[0])
        if tensor is not None and value.shape is not None:
            dims = [dim if isinstance(dim, int) else 1 for dim in value.shape.dims]
            array = np.broadcast_to(tensor.numpy().astype(np.float64), dims)
            found[value] = Pair(array, np.abs(array))
    return found


def base_shape(value: ir.Value, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of what a value that is yet to be made comes from, for one of this shape."""
    how = virtual.origin(value)
    if how is None:
        return shape
    if how.op_type in ("LayerNormalization", "LeakyRelu"):
        return base_shape(how.source, shape)
    if how.op_type == "Transpose":
        order = how.attributes["perm"].as_ints()
        return base_shape(how.source, tuple(shape[order.index(i)] for i in range(len(order))))
    dims = how.source.shape.dims if how.source.shape is not None else ()
    sizes = [dim if isinstance(dim, int) else OPEN for dim in dims[1:]]
    return base_shape(how.source, (shape[0], *sizes))


def data_shape(
    term: Term, sizes: tuple[int, ...], nodes: Iterable[ir.Node] = ()
) -> tuple[int, ...]:
    """[1, C, sizes] for a stencil with spatial axes; [1, 2, .., C] for a matrix.

    Where an operator counts what it reads, the sizes that the model has instead of 1 and 2.
    """
    shape, channels = term.source.shape, term.stencil.reads
    dims = shape.dims if shape is not None else (None, None)
    counted = any(node.op_type in ("Concat", "Reshape") for node in nodes)
    batch, *inner = (dim if counted and isinstance(dim, int) else 0 for dim in dims[:-1])
    if sizes or len(dims) == 2:
        return (batch or 1, channels, *sizes)
    return (batch or 1, *(size or 2 for size in inner), channels)


def within_range(source: ir.Value, x: Array) -> Array:
    """Values that `source` may have: what the activations that make it make of `x`."""
    chain: list[ir.Node] = []
    node = source.producer()
    while node is not None and (node.op_type in CARRYING or node.op_type in MAKING):
        chain.append(node)
        first = node.inputs[0]
        node = first.producer() if first is not None else None
    for node in reversed(chain):
        if node.op_type == "Clip":
            x = np.minimum(np.maximum(x, limits_of(node)[0]), limits_of(node)[1])
        elif node.op_type in MAKING:
            x = MAKING[node.op_type](x)
    return x


def limits_of(node: ir.Node) -> tuple[float, float]:
    """Both limits of a Clip, inputs or attributes; infinite where there is none."""
    limits = [-np.inf, np.inf]
    for index, name in enumerate(("min", "max")):
        if name in node.attributes:
            limits[index] = float(node.attributes[name].value)
        value = node.inputs[index + 1] if len(node.inputs) > index + 1 else None
        tensor = ir.convenience.get_const_tensor(value) if value is not None else None
        if tensor is not None:
            limits[index] = float(tensor.numpy().reshape(-1)[0])
    return limits[0], limits[1]


def _reach(nodes: Iterable[ir.Node]) -> float:
    """How far out data must go to get beyond every limit of a Clip among `nodes`."""
    ends = [abs(end) for node in nodes if node.op_type == "Clip" for end in limits_of(node)]
    return max([1.0, *(2 * end for end in ends if np.isfinite(end))])


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
