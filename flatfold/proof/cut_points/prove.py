"""Prove two graphs equal from cut to cut, whoever rewrote the second.

Values that may be the same in both (`alignment`) cut the graphs into cones. Of each cone that the
outputs rest on, the sources taken for equal, either both sides are one operator with the same
attributes, constants and operands, and so are equal; or both sides are run in float64 on the same
data and must agree within rounding. By induction along the first graph every pair then is equal
within rounding, dead channels, and what an average hides, included.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from flatfold.proof.cut_points.alignment import (
    Alignment,
    Array,
    Numbers,
    agree,
    alike,
    first_numbers,
    in_sequence,
    numbers_of,
    propose,
    values_of,
)
from flatfold.proof.cut_points.check import Verdict, crosscheck
from flatfold.proof.cut_points.cones import Cone, cone_of, is_linear, is_other, is_same, since
from flatfold.system.progress import Progress, silent

DEEPEST = 2  # operators in a row that are not linear; beyond, M says nothing any more


@dataclass
class Cuts:
    """What was found of two graphs: each cone that was run with its verdict, in order.

    `shapes` are those of the first graph's values when it ran; `unpaired` outputs have no partner.
    """

    shapes: Mapping[ir.Value, tuple[int, ...]]
    structural: int = 0
    unpaired: tuple[str, ...] = ()
    checked: list[tuple[Cone, Verdict]] = field(default_factory=list)

    def of_kind(self, kind: str) -> list[tuple[Cone, Verdict]]:
        return [(cone, verdict) for cone, verdict in self.checked if verdict.kind == kind]

    @property
    def verdict(self) -> str:
        """`refuted` if one cone is, `bounded` if all are, else `open`."""
        kinds = {verdict.kind for _, verdict in self.checked}
        if "refuted" in kinds:
            return "refuted"
        return "open" if self.unpaired or "open" in kinds else "bounded"

    @property
    def worst(self) -> float:
        return max((verdict.gap.ratio for _, verdict in self.checked), default=0.0)


@dataclass
class _Sides:
    """Two graphs, what their values are on one input, and the pairs."""

    a: ir.Model
    b: ir.Model
    feeds: Mapping[str, Array]
    of_a: Numbers
    of_b: Numbers
    pairs: Alignment

    def look(self, values: Iterable[ir.Value]) -> dict[ir.Value, Array]:
        """What `values` of the first graph are, in double."""
        found = values_of(self.a, self.feeds, list(values))
        return {value: array.astype(np.float64) for value, array in found.items()}

    def cones(self, ends: Iterable[ir.Value] = (), known: Iterable[ir.Value] = ()) -> list[Cone]:
        """Those that `ends`, else the outputs, rest on, each after the cones of its sources.

        Without the cones of values that are `known`.
        """
        found: dict[ir.Value, Cone] = {}
        wanted = [value for value in ends or self.a.graph.outputs if value not in set(known)]
        while wanted:
            value = wanted.pop()
            if value in found or value.producer() is None or value not in self.pairs.forth:
                continue
            found[value] = cone_of(value, self.pairs.forth[value], self.pairs, self.of_a.order)
            reads = self.operands(found[value]) if self.is_same(found[value]) else None
            reads = reads if reads is not None else [v for v, _ in found[value].sources]
            wanted += [value for value in reads if value not in known]
        return sorted(found.values(), key=lambda cone: self.of_a.order[cone.a])

    def wider(self, cone: Cone) -> Iterator[Cone]:
        """`cone` with its last linear source looked through, and so on, as long as it is linear.

        Sources may depend on each other, so that the two agree on all values that they can have,
        and yet not on any: x and y = x + 1, say.
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

    def cut_further(self, sure: bool) -> bool:
        """Pair what lies around the same activations in a row, where the numbers part ways.

        Unless the two are `sure` to differ, such a pair must still have most numbers in common.
        """
        known = dict(self.pairs.forth)
        fixed = {*_ends(self.a.graph), *_ends(self.b.graph)}
        bent = [[n for n in side.graph if not is_linear(n)] for side in (self.a, self.b)]
        for mine, other in in_sequence(bent[0], bent[1], self.of_a, self.of_b, self.pairs):
            same = sure or alike(self.of_a.samples.get(mine), self.of_b.samples.get(other))
            if same and mine not in fixed and other not in fixed:
                self.pairs.put(mine, other)
        return self.pairs.forth != known

    def part_ways(self) -> bool:
        """Whether the outputs are not the same numbers."""
        ends = zip(self.a.graph.outputs, self.b.graph.outputs, strict=True)
        return not all(agree(self.of_a.samples[x], self.of_b.samples[y]) for x, y in ends)

    def is_same(self, cone: Cone) -> bool:
        """One operator on both sides, of versions that mean the same."""
        node = cone.a.producer()
        return node is not None and self._means_the_same(node) and is_same(cone, self.pairs)

    def _means_the_same(self, node: ir.Node) -> bool:
        """Not where it is a function of the model's own, or was defined anew between two opsets."""
        if node.op_identifier() in {*self.a.functions, *self.b.functions}:
            return False
        one, two = (model.opset_imports.get(node.domain) for model in (self.a, self.b))
        if one == two or one is None or two is None:
            return one == two
        return since(node.op_type, one, node.domain) == since(node.op_type, two, node.domain) > 0

    def unpaired(self) -> tuple[str, ...]:
        """Outputs that are an input or a constant on one side, and not the same on the other."""
        ends = zip(self.a.graph.outputs, self.b.graph.outputs, strict=True)
        apart = (x for x, y in ends if self.pairs.forth.get(x) is not y or is_other(x, y))
        return tuple(value.name or "" for value in apart)

    def operands(self, cone: Cone) -> list[ir.Value]:
        node = cone.a.producer()
        return [v for v in node.inputs if v in self.pairs.forth] if node is not None else []


def _ends(graph: ir.Graph) -> list[ir.Value]:
    return [*graph.inputs, *graph.outputs]


def prove(a: ir.Model, b: ir.Model, progress: Progress = silent, seed: int = 0) -> Cuts:
    """Both canonical, with the same inputs and outputs; they are not changed.

    Raises FlatfoldError where a graph cannot be run.
    """
    feeds, of_a = first_numbers(a, seed)
    of_b = numbers_of(b, feeds)
    sides = _Sides(a, b, feeds, of_a, of_b, propose(a, b, of_a, of_b))
    found = _judged(sides, sides.cones(), progress, seed)
    unclear = found.of_kind("refuted") or found.of_kind("open")
    if all(cone.bends == 0 for cone, _ in unclear):
        return found
    if not sides.cut_further(sure=found.verdict == "refuted" or sides.part_ways()):
        return found
    closer = _judged(sides, sides.cones(), progress, seed)
    return closer if closer.verdict == "refuted" else found


def _judged(sides: _Sides, cones: list[Cone], progress: Progress, seed: int) -> Cuts:
    cuts = Cuts(sides.of_a.shapes, unpaired=sides.unpaired())
    known = {cone.a: None for cone in cones}
    for number, cone in enumerate(cones):  # which grows
        if sides.is_same(cone):
            cuts.structural += 1
            continue
        progress(f"region {number + 1} of {len(cones)}")
        wider, verdict = _verdict(sides, cone, seed + number)
        cuts.checked.append((wider, verdict))
        more = sides.cones([v for v, _ in wider.sources], known) if wider is not cone else []
        known |= {other.a: None for other in more}
        cones.extend(more)
    return cuts


def _verdict(sides: _Sides, cone: Cone, seed: int) -> tuple[Cone, Verdict]:
    """Of `cone`, or of a wider one that is within rounding where this is not."""
    if cone.bends > DEEPEST:
        reason = "too many operators that are not linear lie between two cuts"
        return cone, Verdict("open", reason=reason)
    verdict = crosscheck(cone, sides.of_a.shapes, sides.look, seed)
    if verdict.kind == "refuted" and cone.is_linear:
        for wider in sides.wider(cone):
            again = crosscheck(wider, sides.of_a.shapes, sides.look, seed)
            if again.kind == "bounded":
                return wider, again
    return cone, verdict
