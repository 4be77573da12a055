"""Make a pair of models that differ smaller, as long as they differ in the same way.

Same: the same weight is wrong, or, where there is no weight to name, the error is of the same order
in the same channel. A pair that cannot be run, or that fails in another way, is not a smaller form.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
import onnx_ir as ir

from flatfold.frontend import canonicalize
from flatfold.proof.cut_points.check import ROUNDINGS, both, widest
from flatfold.proof.cut_points.data import Shape, dense, farther, reach_of
from flatfold.proof.interpreter.pair import Unsupported
from flatfold.proof.network.judge import MARGIN
from flatfold.proof.reduction.extract import Twins
from flatfold.proof.reduction.impulse import diagnose


@dataclass(frozen=True)
class Signature:
    """How two models differ, at their own sizes."""

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


def signature(twins: Twins, seed: int = 0) -> Signature | None:
    """None if the two agree, or cannot be run."""
    cone, shapes = twins.cone, {v: twins.shapes[v] for v in twins.a.graph.inputs}
    try:
        gap = widest(cone, [dense(shapes, np.random.default_rng(seed))])
        found = diagnose(cone, shapes, as_it_is=True)
    except (Unsupported, ValueError, LookupError, TypeError):
        return None
    if found is None and gap.ratio <= MARGIN * ROUNDINGS:
        return None
    weight = None if found is None else (found.output, found.input, found.tap)
    values = (0.0, 0.0) if found is None else (found.expected, found.found)
    order = math.log10(max(gap.ratio, 1e-30))
    return Signature(weight, values, order, gap.place[1] if len(gap.place) > 1 else None)


def shrunk(twins: Twins) -> Twins:
    """The smallest that was found."""
    wanted = signature(twins)
    if wanted is None:
        return _declared(twins)
    smaller: Twins | None = twins
    while smaller is not None:
        twins, smaller = smaller, _first(_without_terms(smaller), wanted)
    for axis in _axes(twins):
        twins = _first(_with_less_of(twins, axis), wanted) or twins
    return _declared(twins)


def _declared(twins: Twins) -> Twins:
    """With the shape of the output, which a model must say."""
    cone = twins.cone
    y, _ = both(cone, {v: np.zeros(twins.shapes[v]) for v in twins.a.graph.inputs})
    for model in (twins.a, twins.b):
        model.graph.outputs[0].shape = ir.Shape(y.y.shape)
        canonicalize(model)
    return twins


def _first(candidates: Iterator[Twins], wanted: Signature) -> Twins | None:
    return next((twins for twins in candidates if wanted.is_same(signature(twins))), None)


def _axes(twins: Twins) -> list[int]:
    """The batch, and those of the maps; channels stay."""
    ranks = {len(shape) for shape in twins.shapes.values() if shape}
    return [0, *range(2, min(ranks, default=0))]


def _with_less_of(twins: Twins, axis: int) -> Iterator[Twins]:
    """Every smaller size that stands the same way to the stride, the smallest first."""
    shapes = {v.name or "": twins.shapes[v] for v in twins.a.graph.inputs}
    size = max((shape[axis] for shape in shapes.values()), default=1)
    axes = min((len(shape) for shape in shapes.values()), default=2) - 2
    stride = 1
    if axis >= 2:
        ways = (twins.cone.before, twins.cone.a), (twins.cone.after, twins.cone.b)
        stride = farther(*(reach_of(*way, axes) for way in ways)).stride[axis - 2]
    for fewer in range(1 + (size - 1) % stride, size, stride):
        sizes = {
            name: (*shape[:axis], fewer if shape[axis] == size else shape[axis], *shape[axis + 1 :])
            for name, shape in shapes.items()
        }
        yield twins.resized(sizes)


def _without_terms(twins: Twins) -> Iterator[Twins]:
    """One sum on each side replaced by one of its terms; on one side alone, it would be a fault."""
    sums = [
        [(i, term) for i, n in enumerate(m.graph) if n.op_type == "Add" for term in (0, 1)]
        for m in (twins.a, twins.b)
    ]
    for chosen in product(*sums):
        models = [twins.a.clone(), twins.b.clone()]
        for model, at in zip(models, chosen, strict=True):
            _keep_term(model, *at)
        yield _trimmed(Twins(*models))


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


def _trimmed(twins: Twins) -> Twins:
    """Without nodes and inputs that nothing reads any more."""
    from onnx_ir.passes import common

    for model in (twins.a, twins.b):
        common.RemoveUnusedNodesPass()(model)
    for one, two in zip(list(twins.a.graph.inputs), list(twins.b.graph.inputs), strict=True):
        if not (one.uses() or two.uses()):
            twins.a.graph.inputs.remove(one)
            twins.b.graph.inputs.remove(two)
    return twins
