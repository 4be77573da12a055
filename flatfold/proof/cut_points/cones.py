"""Cones: for a pair of values, the nodes back to other pairs, in both graphs."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import onnx_ir as ir

from flatfold.proof.cut_points.alignment import Alignment
from flatfold.proof.interpreter.operators import Linear, traits_of
from flatfold.proof.interpreter.pair import attribute


@dataclass(frozen=True)
class Cone:
    """The nodes from the pairs `sources` to the pair (a, b), in topological order.

    `before`: those of the first graph, which compute a. `after`: of the second, which compute b.
    """

    a: ir.Value
    b: ir.Value
    sources: tuple[tuple[ir.Value, ir.Value], ...]
    before: tuple[ir.Node, ...]
    after: tuple[ir.Node, ...]

    @cached_property
    def nonlinear_depth(self) -> int:
        """The largest number of operators that are not linear on one path, of either side."""
        return max(nonlinear_depth(self.before, self.a), nonlinear_depth(self.after, self.b))

    @property
    def is_linear(self) -> bool:
        return self.nonlinear_depth == 0

    def partner(self, source: ir.Value) -> ir.Value:
        """The value of the second graph that is paired with a source of the first."""
        return dict(self.sources)[source]


def node_names(nodes: Collection[ir.Node], most: int = 5) -> str:
    names = [node.name or node.op_type for node in nodes]
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def cone_of(a: ir.Value, b: ir.Value, pairs: Alignment, order: Mapping[ir.Value, int]) -> Cone:
    """The cone from pairs that both sides read to (a, b).

    While one side reads a pair that the other does not, the last such pair in the first graph's
    `order` is no longer a source, and the cone is extended past it: the value may be computed from
    the other sources. Inputs of the graphs may remain that only one side reads.
    """
    cuts = set(pairs.to_b) - {a}
    while True:
        before, mine = _back(a, cuts)
        after, others = _back(b, {pairs.to_b[v] for v in cuts})
        left = {v for v in mine if v in cuts}
        right = {pairs.to_a[w] for w in others if w in pairs.to_a and pairs.to_a[w] in cuts}
        inner = [v for v in left | right if not v.is_graph_input()]
        if left == right or not inner:
            break
        cuts.discard(max(inner, key=lambda value: order[value]))
    reads = [v for v in dict.fromkeys([*mine, *sorted(right, key=lambda v: order[v])]) if v in cuts]
    sources = tuple((value, pairs.to_b[value]) for value in reads)
    return Cone(a, b, sources, tuple(before), tuple(after))


def _back(value: ir.Value, cuts: Collection[ir.Value]) -> tuple[list[ir.Node], list[ir.Value]]:
    """The nodes that compute `value` from `cuts` and graph inputs, in order, and those sources."""
    nodes: dict[ir.Node, None] = {}
    reads: dict[ir.Value, None] = {}
    stack: list[tuple[ir.Node | None, ir.Value | None]] = [(None, value)]
    while stack:
        done, needed = stack.pop()
        if done is not None:
            nodes.setdefault(done)
            continue
        if needed is None or (needed.const_value is not None and not needed.is_graph_input()):
            continue
        node = needed.producer()
        if node is None or (needed in cuts and needed is not value):
            reads.setdefault(needed)
        elif node not in nodes:
            stack.append((node, None))
            stack.extend((None, operand) for operand in reversed(node.inputs))
    return list(nodes), list(reads)


def nonlinear_depth(nodes: Iterable[ir.Node], output: ir.Value) -> int:
    """The largest number of operators that are not linear on one path to `output`."""
    depth: dict[ir.Value | None, int] = {}
    for node in nodes:
        most = max((depth.get(v, 0) for v in node.inputs), default=0)
        depth |= dict.fromkeys(node.outputs, most + (not is_linear(node)))
    return depth.get(output, 0)


def is_linear(node: ir.Node) -> bool:
    """Whether the node is linear in its operands that are not constant."""
    if node.op_type in ("LeakyRelu", "PRelu"):
        return _is_straight(node)
    linear = traits_of(node).linear
    if linear in (Linear.NONE, Linear.JOINTLY):
        return linear is Linear.JOINTLY
    varying = [v is not None and v.const_value is None for v in node.inputs]
    return sum(varying) < 2 and (linear is Linear.EACH or not any(varying[1:]))


def _is_straight(node: ir.Node) -> bool:
    """Whether every slope of a LeakyRelu or PRelu is 1, as training makes them to be collapsed."""
    if node.op_type == "LeakyRelu":
        return bool(attribute(node, "alpha", 0.01) == 1)
    slopes = ir.convenience.get_const_tensor(node.inputs[1]) if node.inputs[1] is not None else None
    return slopes is not None and bool(np.all(slopes.numpy() == 1))


def is_same_operator(cone: Cone, pairs: Alignment) -> bool:
    """Whether each side is one node: the same operator, constants, attributes and paired inputs."""
    one, two = cone.a.producer(), cone.b.producer()
    if one is None or two is None or traits_of(one).random:
        return False
    same = (one.op_type, one.domain, one.overload) == (two.op_type, two.domain, two.overload)
    if not same or len(one.inputs) != len(two.inputs) or len(one.outputs) != len(two.outputs):
        return False
    if one.outputs.index(cone.a) != two.outputs.index(cone.b) or not _same_attributes(one, two):
        return False
    return all(_same_operand(x, y, pairs) for x, y in zip(one.inputs, two.inputs, strict=True))


def _same_operand(x: ir.Value | None, y: ir.Value | None, pairs: Alignment) -> bool:
    if x is None or y is None:
        return x is y
    if pairs.to_b.get(x) is y:
        return True
    return _same_constant(x, y)


def since_version(kind: str, opset: int, domain: str) -> int:
    """The opset that introduced the operator's definition in `opset`; 0 if unknown."""
    from onnx import defs

    try:
        return int(defs.get_schema(kind, opset, domain).since_version)
    except defs.SchemaError:
        return 0


def is_different_constant(x: ir.Value, y: ir.Value) -> bool:
    """Whether x is a constant and y is not the same constant."""
    return x.producer() is None and not x.is_graph_input() and not _same_constant(x, y)


def _same_constant(x: ir.Value, y: ir.Value) -> bool:
    one, two = (None if v.is_graph_input() else v.const_value for v in (x, y))
    if one is None or two is None or one.dtype != two.dtype:
        return False
    return one.shape == two.shape and one.tobytes() == two.tobytes()


def _same_attributes(one: ir.Node, two: ir.Node) -> bool:
    if one.attributes.keys() != two.attributes.keys():
        return False
    return all(_same_value(one.attributes[k], two.attributes[k]) for k in one.attributes)


def _same_value(one: Any, two: Any) -> bool:
    if one.type != two.type or one.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS):
        return False
    if one.type == ir.AttributeType.TENSOR:
        return bool(one.as_tensor().tobytes() == two.as_tensor().tobytes())
    return bool(one.value == two.value)
