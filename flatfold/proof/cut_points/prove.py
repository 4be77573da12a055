"""Prove two graphs equal from cut point to cut point, whichever tool rewrote the second.

Pairs of values that may be equal (`alignment`) cut the graphs into cones. In each cone that the
outputs are computed from, the sources are assumed equal. Either both sides are one operator with
the same attributes, constants and operands, and therefore equal; or both sides are run in float64
on the same data and must agree within rounding. By induction along the first graph every pair is
then equal within rounding, including channels that are dead, and errors that an average would hide.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from flatfold.proof.cut_points.alignment import (
    Alignment,
    Array,
    RecordedValues,
    evaluate_values,
    mostly_equal,
    nearly_equal,
    pairs_in_sequence,
    propose_pairs,
    record_first_input,
    record_values,
)
from flatfold.proof.cut_points.check import Verdict, check_cone
from flatfold.proof.cut_points.cones import (
    Cone,
    cone_of,
    is_different_constant,
    is_linear,
    is_same_operator,
    since_version,
)
from flatfold.proof.network.sizes import Shapes
from flatfold.system.progress import Progress, silent

DEEPEST = 2  # operators in a row that are not linear; beyond, M is too large to conclude anything


@dataclass
class CutPointProof:
    """The proof of two graphs: each cone that was run with its verdict, in order.

    `shapes`: those of the first graph's values when it ran. `structural`: cones that are the same
    operator in both. `unpaired`: outputs without a partner.
    """

    shapes: Mapping[ir.Value, tuple[int, ...]]
    structural: int = 0
    unpaired: tuple[str, ...] = ()
    checked: list[tuple[Cone, Verdict]] = field(default_factory=list)

    def of_kind(self, kind: str) -> list[tuple[Cone, Verdict]]:
        return [(cone, verdict) for cone, verdict in self.checked if verdict.kind == kind]

    @property
    def verdict(self) -> str:
        """`refuted` if one cone is refuted, `bounded` if all are bounded, else `open`."""
        kinds = {verdict.kind for _, verdict in self.checked}
        if "refuted" in kinds:
            return "refuted"
        return "open" if self.unpaired or "open" in kinds else "bounded"

    @property
    def worst(self) -> float:
        return max((verdict.gap.ratio for _, verdict in self.checked), default=0.0)


@dataclass
class _PairedGraphs:
    """Two graphs, the values of both on one input, and the pairs of values proposed."""

    a: ir.Model
    b: ir.Model
    feeds: Mapping[str, Array]
    of_a: RecordedValues
    of_b: RecordedValues
    pairs: Alignment

    def record(self, values: Iterable[ir.Value]) -> dict[ir.Value, Array]:
        """The arrays of `values` of the first graph, in double."""
        arrays = evaluate_values(self.a, self.feeds, list(values))
        return {value: array.astype(np.float64) for value, array in arrays.items()}

    def cones(self, ends: Iterable[ir.Value] = (), known: Iterable[ir.Value] = ()) -> list[Cone]:
        """The cones that `ends`, or else the outputs, are computed from, sources first.

        Without the cones of values that are `known`.
        """
        cones: dict[ir.Value, Cone] = {}
        pending = [value for value in ends or self.a.graph.outputs if value not in set(known)]
        while pending:
            value = pending.pop()
            if value in cones or value.producer() is None or value not in self.pairs.to_b:
                continue
            cone = cone_of(value, self.pairs.to_b[value], self.pairs, self.of_a.order)
            cones[value] = cone
            reads = self.operands(cone) if self.is_same(cone) else [v for v, _ in cone.sources]
            pending += [value for value in reads if value not in known]
        return sorted(cones.values(), key=lambda cone: self.of_a.order[cone.a])

    def wider_cones(self, cone: Cone) -> Iterator[Cone]:
        """`cone` extended past its last linear source, and again, as long as it stays linear.

        Sources may depend on each other, such as x and y = x + 1: then the two sides agree on all
        values that can occur together, and yet differ on independent random ones.
        """
        pairs = self.pairs
        while len(cone.sources) > 1:
            makers = {v: v.producer() for v, _ in cone.sources if v is not cone.a}
            inner = [v for v, node in makers.items() if node is not None and is_linear(node)]
            if not inner:
                return
            pairs = pairs.without(max(inner, key=lambda value: self.of_a.order[value]))
            cone = cone_of(cone.a, cone.b, pairs, self.of_a.order)
            if not cone.is_linear:
                return
            yield cone

    def add_cut_points(self, sure: bool) -> bool:
        """Pair the values around activations in the same sequence; returns whether any is new.

        Used where the numbers no longer agree. Unless the two are `sure` to differ, the values of
        such a pair must still be mostly equal.
        """
        known = dict(self.pairs.to_b)
        fixed = {*_ends(self.a.graph), *_ends(self.b.graph)}
        nonlinear = [[n for n in side.graph if not is_linear(n)] for side in (self.a, self.b)]
        for mine, other in pairs_in_sequence(
            nonlinear[0], nonlinear[1], self.of_a, self.of_b, self.pairs
        ):
            same = sure or mostly_equal(self.of_a.samples.get(mine), self.of_b.samples.get(other))
            if same and mine not in fixed and other not in fixed:
                self.pairs.replace(mine, other)
        return self.pairs.to_b != known

    def outputs_differ(self) -> bool:
        """Whether the recorded outputs of the two graphs differ."""
        ends = zip(self.a.graph.outputs, self.b.graph.outputs, strict=True)
        return not all(nearly_equal(self.of_a.samples[x], self.of_b.samples[y]) for x, y in ends)

    def is_same(self, cone: Cone) -> bool:
        """Whether both sides are one operator, with the same definition in both opsets."""
        node = cone.a.producer()
        return (
            node is not None
            and self._is_same_definition(node)
            and is_same_operator(cone, self.pairs)
        )

    def _is_same_definition(self, node: ir.Node) -> bool:
        """False for a function of the model, or where the two opsets define it differently."""
        if node.op_identifier() in {*self.a.functions, *self.b.functions}:
            return False
        one, two = (model.opset_imports.get(node.domain) for model in (self.a, self.b))
        if one == two or one is None or two is None:
            return one == two
        return (
            since_version(node.op_type, one, node.domain)
            == since_version(node.op_type, two, node.domain)
            > 0
        )

    def unpaired(self) -> tuple[str, ...]:
        """Names of outputs that are an input or a constant in one graph but not in the other."""
        ends = zip(self.a.graph.outputs, self.b.graph.outputs, strict=True)
        to_b = self.pairs.to_b
        unpaired = (x for x, y in ends if to_b.get(x) is not y or is_different_constant(x, y))
        return tuple(value.name or "" for value in unpaired)

    def operands(self, cone: Cone) -> list[ir.Value]:
        """The paired inputs of the node that computes the cone's output in the first graph."""
        node = cone.a.producer()
        return [v for v in node.inputs if v in self.pairs.to_b] if node is not None else []


def _ends(graph: ir.Graph) -> list[ir.Value]:
    return [*graph.inputs, *graph.outputs]


def prove(
    a: ir.Model,
    b: ir.Model,
    progress: Progress = silent,
    seed: int = 0,
    sizes: Sequence[Shapes] | None = None,
) -> CutPointProof:
    """The proof that b equals a. Both are canonical, with the same inputs and outputs.

    Neither is changed. Raises FlatfoldError where a graph cannot be run.
    """
    feeds, of_a = record_first_input(a, seed, sizes)
    of_b = record_values(b, feeds)
    sides = _PairedGraphs(a, b, feeds, of_a, of_b, propose_pairs(a, b, of_a, of_b))
    proof = _check_cones(sides, sides.cones(), progress, seed)
    unclear = proof.of_kind("refuted") or proof.of_kind("open")
    if all(cone.nonlinear_depth == 0 for cone, _ in unclear):
        return proof
    if not sides.add_cut_points(sure=proof.verdict == "refuted" or sides.outputs_differ()):
        return proof
    closer = _check_cones(sides, sides.cones(), progress, seed)
    return closer if closer.verdict == "refuted" else proof


def _check_cones(
    sides: _PairedGraphs, cones: list[Cone], progress: Progress, seed: int
) -> CutPointProof:
    proof = CutPointProof(sides.of_a.shapes, unpaired=sides.unpaired())
    known = {cone.a: None for cone in cones}
    for number, cone in enumerate(cones):  # the loop appends to it
        if sides.is_same(cone):
            proof.structural += 1
            continue
        progress(f"region {number + 1} of {len(cones)}")
        wider, verdict = _verdict(sides, cone, seed + number)
        proof.checked.append((wider, verdict))
        more = sides.cones([v for v, _ in wider.sources], known) if wider is not cone else []
        known |= {other.a: None for other in more}
        cones.extend(more)
    return proof


def _verdict(sides: _PairedGraphs, cone: Cone, seed: int) -> tuple[Cone, Verdict]:
    """The verdict on `cone`, or on a wider one that is within rounding where this is not."""
    if cone.nonlinear_depth > DEEPEST:
        reason = "too many operators that are not linear lie between two cut points"

        return cone, Verdict("open", reason=reason)
    verdict = check_cone(cone, sides.of_a.shapes, sides.record, seed)
    if verdict.kind == "refuted" and cone.is_linear:
        for wider in sides.wider_cones(cone):
            again = check_cone(wider, sides.of_a.shapes, sides.record, seed)
            if again.kind == "bounded":
                return wider, again
    return cone, verdict
