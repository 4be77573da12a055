"""What lies between cuts: for a pair of values, the nodes back to other pairs, on both sides."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import onnx_ir as ir

from flatfold.proof.cut_points.alignment import Alignment

LINEAR = (
    "Add",
    "AveragePool",
    "Concat",
    "Flatten",
    "Gather",
    "GlobalAveragePool",
    "Identity",
    "Neg",
    "Pad",
    "ReduceMean",
    "Reshape",
    "Slice",
    "Split",
    "Squeeze",
    "Sub",
    "Sum",
    "Transpose",
    "Unsqueeze",
)
COMMUTING = ("Gemm", "MatMul", "Mul")
NOISE = (
    "Bernoulli",
    "Multinomial",
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
)
PRODUCTS = (*COMMUTING, "BatchNormalization", "Conv", "ConvTranspose", "Div")


@dataclass(frozen=True)
class Cone:
    """Both ways from the same pairs, `sources`, to the pair (a, b); nodes in topological order."""

    a: ir.Value
    b: ir.Value
    sources: tuple[tuple[ir.Value, ir.Value], ...]
    before: tuple[ir.Node, ...]
    after: tuple[ir.Node, ...]

    @cached_property
    def bends(self) -> int:
        """Operators that are not linear, on the way that has most of them."""
        return max(bends(self.before, self.a), bends(self.after, self.b))

    @property
    def is_linear(self) -> bool:
        return self.bends == 0

    def partner(self, source: ir.Value) -> ir.Value:
        """What is in the second graph for a source of the first."""
        return dict(self.sources)[source]


def named(nodes: Collection[ir.Node], most: int = 5) -> str:
    names = [node.name or node.op_type for node in nodes]
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def cone_of(a: ir.Value, b: ir.Value, pairs: Alignment, order: Mapping[ir.Value, int]) -> Cone:
    """Back from (a, b) to pairs that both sides read.

    While one side reads a pair that the other does not, the last pair in the first graph's `order`
    is looked through: it may be computed from the others, which as a source it would not be. In the
    end, one side may read inputs of the graphs that the other does not.
    """
    cuts = set(pairs.forth) - {a}
    while True:
        before, mine = _back(a, cuts)
        after, others = _back(b, {pairs.forth[v] for v in cuts})
        left = {v for v in mine if v in cuts}
        right = {pairs.back[w] for w in others if w in pairs.back and pairs.back[w] in cuts}
        inner = [v for v in left | right if not v.is_graph_input()]
        if left == right or not inner:
            break
        cuts.discard(max(inner, key=lambda value: order[value]))
    reads = [v for v in dict.fromkeys([*mine, *sorted(right, key=lambda v: order[v])]) if v in cuts]
    sources = tuple((value, pairs.forth[value]) for value in reads)
    return Cone(a, b, sources, tuple(before), tuple(after))


def _back(value: ir.Value, cuts: Collection[ir.Value]) -> tuple[list[ir.Node], list[ir.Value]]:
    """Nodes that `value` is computed by from `cuts` or inputs, in order, and what they read."""
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


def bends(nodes: Iterable[ir.Node], output: ir.Value) -> int:
    """How many operators that are not linear lie on one way to `output`, at most."""
    depth: dict[ir.Value | None, int] = {}
    for node in nodes:
        most = max((depth.get(v, 0) for v in node.inputs), default=0)
        depth |= dict.fromkeys(node.outputs, most + (not is_linear(node)))
    return depth.get(output, 0)


def is_linear(node: ir.Node) -> bool:
    """Linear in what it reads; a product if all but its first factor are constant."""
    if node.op_type not in PRODUCTS:
        return node.op_type in LINEAR
    varying = [v is not None and v.const_value is None for v in node.inputs]
    return sum(varying) < 2 and (node.op_type in COMMUTING or not any(varying[1:]))


def is_same(cone: Cone, pairs: Alignment) -> bool:
    """One node on each side, the same operator with the same constants, that read pairs."""
    one, two = cone.a.producer(), cone.b.producer()
    if one is None or two is None or one.op_type in NOISE:
        return False
    alike = (one.op_type, one.domain, one.overload) == (two.op_type, two.domain, two.overload)
    if not alike or len(one.inputs) != len(two.inputs) or len(one.outputs) != len(two.outputs):
        return False
    if one.outputs.index(cone.a) != two.outputs.index(cone.b) or not _same_attributes(one, two):
        return False
    return all(_same_operand(x, y, pairs) for x, y in zip(one.inputs, two.inputs, strict=True))


def _same_operand(x: ir.Value | None, y: ir.Value | None, pairs: Alignment) -> bool:
    if x is None or y is None:
        return x is y
    if pairs.forth.get(x) is y:
        return True
    return _same_constant(x, y)


def since(kind: str, opset: int, domain: str) -> int:
    """The opset in which the operator became what it is in `opset`; 0 if unknown."""
    from onnx import defs

    try:
        return int(defs.get_schema(kind, opset, domain).since_version)
    except defs.SchemaError:
        return 0


def is_other(x: ir.Value, y: ir.Value) -> bool:
    """Two outputs of which the first is a constant, and the second not the same."""
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
