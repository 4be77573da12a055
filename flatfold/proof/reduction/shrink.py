"""Shrink a pair of models that differ, as long as they differ in the same way.

The same way: the same weight is wrong or, where no weight can be named, the error is of the same
order of magnitude in the same channel. A candidate that cannot be run, or that differs in another
way, is not used.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
import onnx_ir as ir

from flatfold.frontend import canonicalize
from flatfold.proof.cut_points.check import ROUNDINGS, evaluate_both, widest_gap
from flatfold.proof.cut_points.data import Shape, dense_inputs, larger_reach, reach_of
from flatfold.proof.interpreter.pair import Unsupported
from flatfold.proof.network.judge import MARGIN
from flatfold.proof.reduction.extract import ModelPair
from flatfold.proof.reduction.impulse import find_wrong_weight


@dataclass(frozen=True)
class Signature:
    """How two models differ at their own sizes.

    weight: (output channel, input channel, tap) of the wrong weight, with its right and its wrong
    value in `values`. order: log10 of the ratio of the error to u M, worst in `channel`.
    """

    weight: tuple[int, int | None, Shape] | None
    values: tuple[float, float]
    order: float
    channel: int | None

    def is_same(self, other: Signature | None) -> bool:
        if other is None or self.weight != other.weight:
            return False
        if self.weight is not None:
            return bool(np.allclose(self.values, other.values, rtol=1e-3))
        return self.channel == other.channel and abs(self.order - other.order) <= 1


def signature(pair: ModelPair, seed: int = 0) -> Signature | None:
    """How the two differ; None if they agree or cannot be run."""
    cone, shapes = pair.cone, {v: pair.shapes[v] for v in pair.a.graph.inputs}
    try:
        gap = widest_gap(cone, [dense_inputs(shapes, np.random.default_rng(seed))])
        wrong = find_wrong_weight(cone, shapes, as_it_is=True)
    except (Unsupported, ValueError, LookupError, TypeError):
        return None
    if wrong is None and gap.ratio <= MARGIN * ROUNDINGS:
        return None
    weight = None if wrong is None else (wrong.output, wrong.input, wrong.tap)
    values = (0.0, 0.0) if wrong is None else (wrong.expected, wrong.found)
    order = math.log10(max(gap.ratio, 1e-30))
    return Signature(weight, values, order, gap.place[1] if len(gap.place) > 1 else None)


def shrink(pair: ModelPair) -> ModelPair:
    """The smallest pair that differs in the same way."""
    wanted = signature(pair)
    if wanted is None:
        return _with_output_shape(pair)
    smaller: ModelPair | None = pair
    while smaller is not None:
        pair, smaller = smaller, _first(_without_terms(smaller), wanted)
    for axis in _axes(pair):
        pair = _first(_smaller_along(pair, axis), wanted) or pair
    return _with_output_shape(pair)


def _with_output_shape(pair: ModelPair) -> ModelPair:
    """The pair with the shape of the output, which a valid model declares; changed in place."""
    cone = pair.cone
    y, _ = evaluate_both(cone, {v: np.zeros(pair.shapes[v]) for v in pair.a.graph.inputs})
    for model in (pair.a, pair.b):
        model.graph.outputs[0].shape = ir.Shape(y.y.shape)
        canonicalize(model)
    return pair


def _first(candidates: Iterator[ModelPair], wanted: Signature) -> ModelPair | None:
    return next((pair for pair in candidates if wanted.is_same(signature(pair))), None)


def _axes(pair: ModelPair) -> list[int]:
    """The axes that may get smaller: the batch and those of the maps, not the channels."""
    ranks = {len(shape) for shape in pair.shapes.values() if shape}
    return [0, *range(2, min(ranks, default=0))]


def _smaller_along(pair: ModelPair, axis: int) -> Iterator[ModelPair]:
    """Every smaller size with the same residue modulo the stride, the smallest first."""
    shapes = {v.name or "": pair.shapes[v] for v in pair.a.graph.inputs}
    size = max((shape[axis] for shape in shapes.values()), default=1)
    axes = min((len(shape) for shape in shapes.values()), default=2) - 2
    stride = 1
    if axis >= 2:
        sides = (pair.cone.before, pair.cone.a), (pair.cone.after, pair.cone.b)
        stride = larger_reach(*(reach_of(*side, axes) for side in sides)).stride[axis - 2]
    for fewer in range(1 + (size - 1) % stride, size, stride):
        sizes = {
            name: (*shape[:axis], fewer if shape[axis] == size else shape[axis], *shape[axis + 1 :])
            for name, shape in shapes.items()
        }
        yield pair.resized(sizes)


def _without_terms(pair: ModelPair) -> Iterator[ModelPair]:
    """One Add of each model replaced by one of its terms: in one alone, that would be a fault."""
    sums = [
        [(i, term) for i, n in enumerate(m.graph) if n.op_type == "Add" for term in (0, 1)]
        for m in (pair.a, pair.b)
    ]
    for chosen in product(*sums):
        models = [pair.a.clone(), pair.b.clone()]
        for model, at in zip(models, chosen, strict=True):
            _keep_term(model, *at)
        yield _trimmed(ModelPair(*models))


def _keep_term(model: ir.Model, index: int, term: int) -> None:
    node = model.graph[index]
    kept = node.inputs[term]
    if kept is None:
        return
    identity = ir.node("Identity", [kept], name=node.name)
    identity.outputs[0].type = node.outputs[0].type
    ir.convenience.replace_nodes_and_values(
        model.graph, node, [node], [identity], node.outputs, identity.outputs
    )


def _trimmed(pair: ModelPair) -> ModelPair:
    """The pair without nodes and inputs that nothing reads any more; changed in place."""
    from onnx_ir.passes import common

    for model in (pair.a, pair.b):
        common.RemoveUnusedNodesPass()(model)
    for one, two in zip(list(pair.a.graph.inputs), list(pair.b.graph.inputs), strict=True):
        if not (one.uses() or two.uses()):
            pair.a.graph.inputs.remove(one)
            pair.b.graph.inputs.remove(two)
    return pair
