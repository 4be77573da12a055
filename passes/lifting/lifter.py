"""Nodes to stencils: read a linear region back from its last node to the values it reads.

A region is grown from its root towards the inputs through values that only the region reads, so it
can be replaced as a whole and its weights are rounded once. Where growing stops at a linear
operator, the boundary keeps the reason.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

import onnx_ir as ir

from flatfold.passes.collapse_activations import ACTIVATIONS
from flatfold.passes.cost.profiles import Profile
from flatfold.passes.decline import Decline
from flatfold.passes.lifting.forms import FormBuilder, pop_forms
from flatfold.passes.lifting.recompute import Recompute
from flatfold.passes.lifting.sums import flatten_sums
from flatfold.passes.lowering.plan import form_cost, nodes_cost
from flatfold.passes.lowering.rounding import within_range
from flatfold.passes.reading.affine import Affine
from flatfold.passes.reading.deferred import origin_of
from flatfold.passes.reading.layout import form_of_operator
from flatfold.passes.reading.meaning import Applied, Joined, Linear, Summed, Transparent, operands
from flatfold.passes.reading.node import producer_of, why_shared
from flatfold.passes.reading.operators import meaning
from flatfold.passes.reading.transparent import push_through
from flatfold.passes.rewrite import COLLAPSE, COMPOSE, FOLD, MERGE, TRIM, Region
from flatfold.passes.trim_kernels import best_size, split_sparse

REMEMBERED = 1 << 20  # bytes


class Lifter:
    """Lifts regions of one graph; remembers what it learned, so each node is read once.

    `allowed` holds the kinds of region that may be built: with "merge" missing, no sum is entered.
    """

    def __init__(self, allowed: frozenset[str], profile: Profile, planes: bool = False) -> None:
        self.allowed = allowed
        self._bolder = None if planes else Lifter(allowed, profile, planes=True)
        self._forms = FormBuilder(profile, COMPOSE in allowed, planes, {})
        self._meanings: dict[ir.Node, Linear | Decline] = {}
        self._cuts: dict[ir.Value, Decline] = {}
        self._dear: dict[ir.Value, Affine] = {}
        self._reopening = Recompute(
            self._forms,
            self._cuts,
            self._dear,
            lambda value: self._form_of(producer_of(value)),
            lambda node: self._inside(node)[0],
        )
        self._regions: dict[ir.Node, Region] = {}

    def lift(self, root: ir.Node) -> Region:
        """The region that ends in `root`. Raises Decline if the node itself is not linear."""
        if root not in self._regions:
            self._regions[root] = self._grown(root)
        return self._regions[root]

    def _grown(self, root: ir.Node) -> Region:
        """The region; with padding by a bias in it, if without it would end there."""
        region: Region | None = None
        try:
            region = self._lift(root)
            if all(why.code != "BORDER-BIAS" for _, why in region.boundaries):
                return region
        except Decline as why:
            if self._bolder is None or why.code != "BORDER-BIAS":
                raise
        if self._bolder is not None:
            with contextlib.suppress(Decline):
                try:
                    other = self._bolder.lift(root)
                finally:
                    self._bolder.release(root)
                profile = self._forms.profile
                gains = form_cost(other.form, profile).seconds < nodes_cost(other, profile).seconds
                if gains and (region is None or len(other.nodes) > len(region.nodes)):
                    return other
        if region is None:
            raise Decline(
                "BORDER-BIAS", f"{root.name} puts a constant beside data that is not padded by it"
            )
        return region

    def form(self, root: ir.Node, ends: Iterable[tuple[ir.Value, Decline]]) -> Affine:
        """The form of the region between these values and `root`; no larger one is looked for."""
        self._cuts.update(ends)
        return self._lift(root).form

    def release(self, root: ir.Node) -> None:
        """Let go of a region that has been dealt with; large weights can be read again."""
        region = self._regions.pop(root, None)
        for node in (root, *(region.nodes if region is not None else ())):
            known = self._meanings.get(node)
            if isinstance(known, Applied) and known.stencil.weight.nbytes > REMEMBERED:
                del self._meanings[node]

    def linear(self, node: ir.Node) -> Linear:
        """`meaning`, remembered; a sum only where merging is allowed."""
        if node not in self._meanings:
            try:
                with within_range():
                    self._meanings[node] = self._checked(node)
            except Decline as reason:
                self._meanings[node] = reason.bare()
        known = self._meanings[node]
        if isinstance(known, Decline):
            raise known.bare()
        return known

    def _checked(self, node: ir.Node) -> Linear:
        found = meaning(node)
        if isinstance(found, Summed | Joined) and MERGE not in self.allowed:
            raise Decline("OFF", "merging is switched off")
        if node.op_type in ACTIVATIONS and COLLAPSE not in self.allowed:
            raise Decline("OFF", "collapsing activations is switched off")
        return found

    def _lift(self, root: ir.Node) -> Region:
        linear = self.linear(root)
        if isinstance(linear, Applied) and origin_of(linear.source) is not None:
            raise Decline("NONLINEAR", "only what is behind it is linear")
        self._dear.clear()
        form = self._form_of(root)
        nodes, meanings, boundaries = self._inside(root)
        kind = kind_of(meanings)
        if form.plane is not None:
            raise Decline("BORDER-BIAS", f"its bias is another {form.plane.border}")
        if TRIM in self.allowed:
            smaller = split_sparse(best_size(form, self._forms.profile), self._forms.profile)
            kind = TRIM if smaller is not form and len(nodes) == 1 else kind
            form = smaller
        ends, evened = tuple(boundaries.items()), self._bolder is None
        return Region(root, form, nodes, meanings, kind, ends, evened)

    def _form_of(self, root: ir.Node) -> Affine:
        """The form of what `root` makes, grown as far as it goes."""
        forms: dict[ir.Value, Affine] = {}
        order = self._reachable(root)
        sums = flatten_sums(order, self.linear, self._cuts)
        for node in reversed(order):
            output = node.outputs[0]
            if isinstance(self.linear(node), Summed) and node not in sums:
                continue  # its terms belong to the sum that reads it
            try:
                forms[output] = self._form(node, forms, sums.get(node, []))
            except Decline as reason:
                self._meanings[node] = reason.bare()
                if node is root:
                    raise
                self._cuts[output] = reason.bare()
        return forms[root.outputs[0]]

    def _reachable(self, root: ir.Node) -> list[ir.Node]:
        """Nodes that could belong to the region, every node before the nodes it reads."""
        order, stack = [], [root]
        while stack:
            node = stack.pop()
            order.append(node)
            for value in operands(self.linear(node)):
                if self._open(value):
                    stack.append(producer_of(value))
        return order

    def _open(self, value: ir.Value) -> bool:
        """Whether growing may go through `value`; if not, `_cuts` has the reason."""
        if value in self._cuts:
            return False
        try:
            self._require_private(value)
        except Decline as reason:
            self._cuts[value] = reason.bare()
            return False
        return True

    def _require_private(self, value: ir.Value) -> None:
        self.linear(producer_of(value))
        why = why_shared(value)
        if why is not None:
            raise why

    def _form(
        self, node: ir.Node, forms: dict[ir.Value, Affine], terms: list[tuple[int, ir.Value]]
    ) -> Affine:
        linear = self.linear(node)
        if isinstance(linear, Summed):
            signs, values = zip(*terms, strict=True)
            return self._reopening.best_sum(node, signs, pop_forms(values, forms))
        if isinstance(linear, Joined):
            return self._forms.of_join(node, linear, pop_forms(linear.values, forms))
        if isinstance(linear, Transparent):
            return self._carried(node, linear, forms)
        found = forms.pop(linear.source, None)
        if found is not None:
            try:
                return self._forms.composed(node, linear, found)
            except Decline as reason:
                self._cuts[linear.source] = reason.bare()
                if reason.code == "COST":
                    self._dear[linear.source] = found
        return form_of_operator(linear, node.outputs[0])

    def _carried(self, node: ir.Node, linear: Transparent, forms: dict[ir.Value, Affine]) -> Affine:
        ((_, inner),) = pop_forms((linear.source,), forms)
        try:
            return push_through(node, linear, inner)
        except Decline:
            if linear.source in self._cuts or len(inner.terms) == 1:
                raise
            last = self.linear(producer_of(linear.source))
            if not isinstance(last, Applied) or not last.stencil.geometry.is_diagonal:
                raise
            alone = form_of_operator(
                last, linear.source
            )  # of a sum, the map behind it still passes
            form = push_through(node, linear, alone)
            self._cuts[last.source] = Decline("NONLINEAR", "only a map of the channels passes")
            return form

    def _inside(
        self, root: ir.Node
    ) -> tuple[tuple[ir.Node, ...], dict[ir.Node, Linear], dict[ir.Value, Decline]]:
        """Nodes of the region, each after those that read it; their meanings; its ends and why."""
        nodes: list[ir.Node] = []
        meanings: dict[ir.Node, Linear] = {}
        boundaries: dict[ir.Value, Decline] = {}
        stack = [(root, False)]
        while stack:
            node, is_left = stack.pop()
            linear = self.linear(node)
            if is_left:
                through = linear.through if isinstance(linear, Applied) else ()
                nodes += [*(producer_of(value) for value in reversed(through)), node]
            if is_left or node in meanings:
                continue
            meanings[node] = linear
            stack.append((node, True))
            if node in self._forms.refusals:
                boundaries[node.outputs[0]] = self._forms.refusals[node]
            for value in operands(linear):
                if value in self._cuts:
                    boundaries[value] = self._cuts[value]
                else:
                    stack.append((producer_of(value), False))
        return tuple(reversed(nodes)), meanings, boundaries


def kind_of(meanings: dict[ir.Node, Linear]) -> str:
    """The kind of a region with these nodes."""
    found = list(meanings.values())
    if any(isinstance(linear, Summed | Joined) for linear in found):
        return MERGE
    layers = sum(
        isinstance(linear, Applied) and not linear.stencil.geometry.is_diagonal for linear in found
    )
    if layers > 1:
        return COMPOSE
    return COLLAPSE if any(node.op_type in ACTIVATIONS for node in meanings) else FOLD
