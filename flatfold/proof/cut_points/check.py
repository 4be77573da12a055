"""Check one cone: run both sides in float64 on the same data and compare within rounding.

Elementwise |y' - y| <= 1.01 n u M, where u is the unit roundoff of the graph's type and M the
magnitude companion of y: n = 1 where the weights of the second graph are rounded once. Tools that
fold in single precision round a weight several times; up to n = ROUNDINGS are accepted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import onnx_ir as ir

from flatfold.proof.cut_points.cones import Cone
from flatfold.proof.cut_points.data import (
    Shape,
    Weights,
    channel_blocks,
    dense_inputs,
    impulse_inputs,
    impulse_shapes,
    is_any_size,
    larger_reach,
    reach_of,
    row_inputs,
    small_shapes,
)
from flatfold.proof.interpreter.convolution import Array
from flatfold.proof.interpreter.interpreter import evaluate
from flatfold.proof.interpreter.operators import Linear, traits_of
from flatfold.proof.interpreter.pair import Pair, Unsupported, attribute
from flatfold.proof.network.inputs import limits_of, within_range
from flatfold.proof.network.judge import MARGIN, ROUNDOFF, SPACING

ROUNDINGS = 5  # of a weight: var + eps, root, quotient, product, sum of branches

LAYERS = ("Conv", "Gemm", "MatMul")
RECORDED = 32.0  # largest ratio to u M on recorded values, which are rounded themselves
MOST_ELEMENTS = 1 << 24  # of one value: 256 MiB, with M
STACK = 16  # images that are run at once

Feeds = Mapping[ir.Value, Array]
Record = Callable[[Iterable[ir.Value]], Feeds]


@dataclass(frozen=True)
class Gap:
    """The worst of |y' - y| / (u M), and where: (image, channel, position ...).

    of_bias: it is in what both sides compute for zeros, not in what the weights add to that.
    """

    ratio: float
    place: Shape = ()
    of_bias: bool = False


@dataclass(frozen=True)
class Verdict:
    """The result for one cone: `kind` is `bounded`, `refuted`, or `open` with the reason."""

    kind: str
    gap: Gap = Gap(0.0)
    reason: str = ""


def check_cone(
    cone: Cone, shapes: Mapping[ir.Value, Shape], record: Record, seed: int = 0
) -> Verdict:
    """`shapes`: those of the first graph's values; `record` returns its values on a real input."""
    values = [cone.a, *(v for v, _ in cone.sources)]
    unknown = [
        v for v in values if v.dtype is None or v.dtype.name not in ROUNDOFF or v not in shapes
    ]
    if unknown:
        return Verdict("open", reason=f"{unknown[0].name} is no float tensor")
    limit = MARGIN * ROUNDINGS
    try:
        trials = list(trial_feeds(cone, shapes, np.random.default_rng(seed)))
        gap = widest_gap(cone, trials)
        if gap.ratio > MARGIN and not cone.is_linear:  # perhaps on numbers that cannot occur there
            possible = [{v: within_range(v, x) for v, x in feeds.items()} for feeds in trials]
            gap = widest_gap(cone, possible)
        if gap.ratio > limit and not cone.is_linear:
            real = widest_gap(cone, [record(v for v, _ in cone.sources)])
            if real.ratio <= RECORDED:
                reason = "the two differ on random numbers, but not on those of a real input"
                return Verdict("open", gap, reason)
    except Unsupported as what:
        return Verdict("open", reason=f"the check does not know {what}")
    except (ValueError, LookupError, TypeError) as why:
        return Verdict("open", reason=f"the check cannot run it: {why}")
    return Verdict("bounded" if gap.ratio <= limit else "refuted", gap)


def _products_in_weights(cone: Cone) -> int:
    """Channels that are summed in one weight which the second side has in place of two; 1 if none.

    Those are between a layer of the first side and a later one on the same path.
    """
    most, ends = 1, []
    for nodes, output in _sides(cone):
        layers: dict[ir.Value | None, int] = {}
        for node in nodes:
            earlier = max((layers.get(v, 0) for v in node.inputs), default=0)
            if node.op_type in LAYERS and earlier and nodes is cone.before:
                most = max(most, _read_channels(node))
            layers |= dict.fromkeys(node.outputs, earlier + (node.op_type in LAYERS))
        ends.append(layers.get(output, 0))
    return most if ends[0] > ends[1] else 1


def _read_channels(node: ir.Node) -> int:
    """Channels that one output of a layer with a constant weight reads; 1 if that is not known."""
    weight = node.inputs[1]
    tensor = weight.const_value if weight is not None else None
    shape = tensor.numpy().shape if tensor is not None else ()
    if len(shape) < 2:
        return 1
    in_rows = node.op_type == "Conv" or bool(attribute(node, "transB", 0))
    return int(shape[1 if in_rows else -2])


def trial_feeds(
    cone: Cone, shapes: Mapping[ir.Value, Shape], rng: np.random.Generator
) -> Iterable[Feeds]:
    """Feeds for the first graph's sources: N(0, 1) everywhere, then impulses.

    At small sizes where every operator computes the same at any size. Raises Unsupported where
    another cone has a value of more than MOST_ELEMENTS elements.
    """
    own = {v: shapes[v] for v, _ in cone.sources}
    axes = _map_axes(own.values())
    reach = larger_reach(*(reach_of(n, v, axes) for n, v in _sides(cone)))
    small = small_shapes(own, reach) if _is_any_size(cone, axes) else None
    counts = [math.prod(shapes[v]) for n in cone.before for v in n.outputs if v in shapes]
    if small is None and max(counts, default=0) > MOST_ELEMENTS:
        raise Unsupported(f"a value of {max(counts)} elements")
    if not cone.is_linear:
        yield {v: _spread(x, cone, rng) for v, x in dense_inputs(small or own, rng).items()}
        return
    yield dense_inputs(small or own, rng)
    rows = row_inputs(own, rng) if small is None and _reads_rows(cone) else None
    if rows is not None:
        for number in range(max(map(len, rows.values()))):
            yield {value: x[number] for value, x in rows.items()}
    elif own and all(len(shape) == axes + 2 for shape in own.values()):
        weights = Weights(_weight_count(cone.after), _products_in_weights(cone))
        if small is None:
            yield from _one_by_one(own, impulse_inputs(own, reach, weights, rng))
            return
        weights = replace(weights, blocks=channel_blocks((*cone.before, *cone.after), own.values()))
        sizes = impulse_shapes(own, reach, weights.blocks)
        yield from _in_batches(impulse_inputs(sizes, reach, weights, rng))


def _map_axes(shapes: Iterable[Shape]) -> int:
    """The axes behind batch and channels that the largest source has."""
    return max((len(shape) - 2 for shape in shapes), default=0)


def _is_any_size(cone: Cone, axes: int) -> bool:
    return axes > 0 and is_any_size((*cone.before, *cone.after), axes)


def _reads_rows(cone: Cone) -> bool:
    """Whether the cone multiplies the last axis of a source of several axes by a matrix."""
    products = [n for nodes, _ in _sides(cone) for n in nodes if n.op_type == "MatMul"]
    return bool(products)


def _in_batches(images: Feeds) -> Iterable[Feeds]:
    """STACK images at a time."""
    for start in range(0, max(map(len, images.values())), STACK):
        yield {v: x[start : start + STACK] for v, x in images.items()}


def _weight_count(nodes: Iterable[ir.Node]) -> int:
    constants = {v for node in nodes for v in node.inputs if v is not None}
    return sum(int(v.const_value.size) for v in constants if v.const_value is not None)


def _one_by_one(shapes: Mapping[ir.Value, Shape], images: Feeds) -> Iterable[Feeds]:
    """Each image, repeated to fill the batch; the graph may depend on the batch size."""
    count = max(map(len, images.values()))
    for i in range(count):
        yield {v: np.broadcast_to(x[i], shapes[v]) for v, x in images.items()}


def _sides(cone: Cone) -> tuple[tuple[tuple[ir.Node, ...], ir.Value], ...]:
    return (cone.before, cone.a), (cone.after, cone.b)


def _spread(x: Array, cone: Cone, rng: np.random.Generator) -> Array:
    """Half of the numbers scaled so that they exceed the limits of every Clip in the cone."""
    clips = (n for nodes, _ in _sides(cone) for n in nodes if n.op_type == "Clip")
    ends = [2 * abs(end) for node in clips for end in limits_of(node) if math.isfinite(end)]
    return np.where(rng.random(x.shape) < 0.5, x, x * max([1.0, *ends]))


def widest_gap(cone: Cone, trials: Iterable[Feeds]) -> Gap:
    """The worst gap over all `trials`. Raises Unsupported.

    Of a linear cone, the weights are compared by what they add to the outputs for zeros, and those
    outputs, which are the bias, on their own (`_bias_gap`).
    """
    worst, silent = Gap(-1.0), _Silence(cone)
    for feeds in trials:
        before, after = evaluate_both(cone, feeds)
        quiet = silent.outputs(feeds) if cone.is_linear else None
        gaps = [_gap(cone, before, after.y, feeds, quiet)]
        if quiet and gaps[0].ratio > MARGIN * ROUNDINGS and _is_merged(cone):
            gaps = [_gap(cone, _with_summands(before, quiet[0]), after.y, feeds, quiet)]
        if quiet is not None and worst.ratio < 0:
            gaps.append(replace(_bias_gap(cone, before, *quiet), of_bias=True))
        for gap in gaps:
            worst = gap if not gap.ratio <= worst.ratio else worst
    return worst


@dataclass
class _Silence:
    """The outputs of both sides where the sources are zero, for sources of each shape."""

    cone: Cone
    known: dict[tuple[Shape, ...], tuple[Pair, Pair]] = field(default_factory=dict)

    def outputs(self, feeds: Feeds) -> tuple[Pair, Pair]:
        shapes = tuple(x.shape for x in feeds.values())
        if _is_any_size(self.cone, _map_axes(shapes)):  # then all images have the same outputs
            shapes = tuple((1, *shape[1:]) for shape in shapes)
        if shapes not in self.known:
            zeros = {v: np.zeros(shape) for v, shape in zip(feeds, shapes, strict=True)}
            self.known = {shapes: evaluate_both(self.cone, zeros)}
        return self.known[shapes]


def _bias_gap(cone: Cone, loud: Pair, before: Pair, after: Pair) -> Gap:
    """The worst error of a bias over its magnitude M.

    A folded bias `beta - mean * gamma / std` has the errors of both terms, which may cancel. Where
    the first graph has them, M is their sum; a graph that was folded before has neither of them
    any more. So M is |bias| there, and the sizes that such terms plausibly have: the root mean
    square of all biases, and twice that of the outputs for N(0, 1), since means are of the size of
    a few deviations.
    """
    if _has_norms(cone):
        return _gap(cone, before, after.y, {})
    others = _root_mean_square(before.y) + 2 * _root_mean_square(loud.y - before.y)
    return _gap(cone, Pair(before.y, before.m + others), after.y, {})


def _has_norms(cone: Cone) -> bool:
    """Whether each layer of the first side has its norm, so that nothing was folded into it."""
    layers = [n for n in cone.before if traits_of(n).linear in (Linear.FIRST, Linear.EACH)]
    folded = [n for n in layers if n.op_type != "BatchNormalization"]
    readers = (use.node.op_type for n in folded for use in n.outputs[0].uses())
    return len(folded) < len(layers) and all(kind == "BatchNormalization" for kind in readers)


def _is_merged(cone: Cone) -> bool:
    """Whether the first side is one layer, so that branches may have been added in it before."""
    return len(cone.before) == 1 and cone.before[0].op_type != "BatchNormalization"


def _with_summands(loud: Pair, quiet: Pair) -> Pair:
    """`loud` with an M that also has the largest product of each channel.

    A weight of several branches that were added before may be the small difference of large ones;
    those were of the size of the other weights of its output.
    """
    grown = loud.m - quiet.m
    over = tuple(i for i in range(grown.ndim) if i != 1)
    return Pair(loud.y, loud.m + grown.max(axis=over, keepdims=True, initial=0.0))


def _root_mean_square(array: Array) -> float:
    return float(np.sqrt(np.mean(array**2))) if array.size else 0.0


def evaluate_both(cone: Cone, feeds: Feeds) -> tuple[Pair, Pair]:
    """The outputs of both sides for `feeds`, which are of the first graph's sources."""
    pairs = {v: Pair(x, np.abs(x)) for v, x in feeds.items()}
    others = {cone.partner(v): pair for v, pair in pairs.items()}
    before = evaluate_output(cone.before, cone.a, pairs)
    return before, evaluate_output(cone.after, cone.b, others)


def evaluate_output(
    nodes: Iterable[ir.Node], output: ir.Value, feeds: Mapping[ir.Value, Pair]
) -> Pair:
    """`output` in float64, with its magnitude companion. Raises Unsupported."""
    known = dict(feeds)
    with np.errstate(all="ignore"):
        for node in nodes if output not in known else ():
            if node.domain not in ("", "ai.onnx"):
                raise Unsupported(f"{node.domain}.{node.op_type}")
            known |= _split(node, known) if node.op_type == "Split" else evaluate([node], known)
    if output not in known and output.const_value is not None:
        array = output.const_value.numpy().astype(np.float64)
        return Pair(array, np.abs(array))
    return known[output]


def _split(node: ir.Node, known: Mapping[ir.Value, Pair]) -> dict[ir.Value, Pair]:
    """All outputs of a Split; the interpreter itself knows operators of one output only."""
    source = node.inputs[0]
    if source is None or source not in known:
        raise Unsupported("Split of a constant")
    x, axis = known[source], attribute(node, "axis", 0)
    sizes = attribute(node, "split", None)
    if sizes is None and len(node.inputs) > 1 and node.inputs[1] is not None:
        tensor = ir.convenience.get_const_tensor(node.inputs[1])
        if tensor is None:
            raise Unsupported("Split by computed sizes")
        sizes = tensor.numpy().tolist()
    size, parts = x.y.shape[axis], len(node.outputs)
    ends = np.cumsum(sizes) if sizes else -(-size // parts) * np.arange(1, parts + 1)
    indices = [int(end) for end in ends[:-1]]
    pieces = zip(np.split(x.y, indices, axis), np.split(x.m, indices, axis), strict=True)
    return {v: Pair(y, m) for v, (y, m) in zip(node.outputs, pieces, strict=True)}


def _gap(
    cone: Cone, before: Pair, after: Array, feeds: Feeds, quiet: tuple[Pair, Pair] | None = None
) -> Gap:
    """The worst of |y' - y| / (u M); both without `quiet`, the outputs of both sides for zeros."""
    if before.y.shape != after.shape:
        raise ValueError(f"the shapes become {before.y.shape} and {after.shape}")
    if not np.all(np.isfinite(before.y)):
        raise ValueError("the numbers leave the range of float64")
    dtype = cone.a.dtype.name if cone.a.dtype is not None else ""
    products = 1 + sum(map(_products, cone.after))
    length = products + sum(map(_products, cone.before)) + 4 * len(cone.before) + 16
    largest = max((float(np.max(np.abs(x), initial=0.0)) for x in feeds.values()), default=1.0)
    lost = SPACING.get(dtype, 0.0) / 2 * products * largest
    own, other = (0.0, 0.0) if quiet is None else (quiet[0].y, quiet[1].y)
    grown = before.m if quiet is None else before.m - quiet[0].m
    bound = ROUNDOFF[dtype] * grown + length * 2.0**-53 * before.m + lost
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.abs((after - other) - (before.y - own))
        ratios = np.where(error > 0, error / bound, np.where(np.isfinite(error), 0.0, np.inf))
    if ratios.size == 0:
        return Gap(0.0)
    place = np.unravel_index(int(np.argmax(ratios)), ratios.shape)
    return Gap(float(ratios[place]), tuple(int(i) for i in place))


def _products(node: ir.Node) -> int:
    """Products that are summed in one output of `node`, approximately."""
    if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
        return 1
    weight = node.inputs[1]
    tensor = weight.const_value if weight is not None else None
    return int(tensor.size) // max(1, min(tensor.numpy().shape[:2], default=1)) if tensor else 1
