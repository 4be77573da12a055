"""Grow a linear region from its last node back to the values it reads.

A region grows from its root towards the inputs through values that only the region reads, so it
can be replaced as a whole and its weights are rounded once. Where growth stops at a linear
operator, the stop keeps the reason.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence

import onnx_ir as ir

from flatfold.passes.cost.model import CostModel
from flatfold.passes.decline import Decline
from flatfold.passes.lifting.forms import FormBuilder, pop_forms
from flatfold.passes.lifting.recompute import Recompute
from flatfold.passes.lifting.sums import flatten_sums
from flatfold.passes.lowering.plan import cost_of_nodes, form_cost
from flatfold.passes.lowering.rounding import within_range
from flatfold.passes.reading import LAST_READERS, READERS, Reader, ReaderTable, meaning
from flatfold.passes.reading.affine import Affine
from flatfold.passes.reading.deferred import origin_of, root_value
from flatfold.passes.reading.layers import LAYERS
from flatfold.passes.reading.layout import form_of_operator
from flatfold.passes.reading.meaning import Applied, Joined, Linear, Summed, Transparent, operands
from flatfold.passes.reading.node import producer_of, why_shared
from flatfold.passes.reading.transparent import push_through
from flatfold.passes.rewrite import Region, Rewrite

REMEMBERED = 1 << 20  # bytes of a weight above which it is read again rather than kept


class Lifter:
    """Lifts regions of one graph with what the passes in use contribute.

    It remembers what it has read, so each node is read once. `borders`: a bias may differ near the
    border of the map within a region, as padding by a constant makes it. `shared`: values that a
    region may grow through though several nodes read them, since all of those will change.
    """

    def __init__(
        self,
        passes: Sequence[Rewrite],
        cost: CostModel,
        borders: bool = False,
        shared: Container[ir.Value] = (),
    ) -> None:
        self._passes, self._cost, self._shared = passes, cost, shared
        self._readers = _readers_of(passes)
        self._border_lifter = None if borders else Lifter(passes, cost, True, shared)
        self._builder = FormBuilder(passes, cost, borders)
        self._meanings: dict[ir.Node, Linear | Decline] = {}
        self._stops: dict[ir.Value, Decline] = {}
        self._too_costly: dict[ir.Value, Affine] = {}
        self._recompute = Recompute(
            self._builder,
            self._stops,
            self._too_costly,
            lambda value: self._form_of(producer_of(value)),
            lambda node: self._inside(node)[0],
        )
        self._regions: dict[ir.Node, Region] = {}

    def lift(self, root: ir.Node) -> Region:
        """The region that ends in `root`. Raises Decline if the node itself is not linear."""
        if root not in self._regions:
            self._regions[root] = self._larger_region(root)
        return self._regions[root]

    def _larger_region(self, root: ir.Node) -> Region:
        """The region; if a border bias ends it, the one that allows border biases, if that pays."""
        region: Region | None = None
        try:
            region = self._lift(root)
            if all(why.code != "BORDER-BIAS" for _, why in region.stops):
                return region
        except Decline as why:
            if self._border_lifter is None or why.code != "BORDER-BIAS":
                raise
        if self._border_lifter is not None:
            with contextlib.suppress(Decline):
                try:
                    other = self._border_lifter.lift(root)
                finally:
                    self._border_lifter.release(root)
                before = cost_of_nodes(other.meanings, self._cost)
                pays = form_cost(other.form, self._cost).seconds < before.seconds
                if pays and (region is None or len(other.nodes) > len(region.nodes)):
                    return other
        if region is None:
            raise Decline(
                "BORDER-BIAS", f"{root.name} puts a constant next to data that is not padded by it"
            )
        return region

    def between(self, root: ir.Node, stops: Iterable[tuple[ir.Value, Decline]]) -> Region:
        """The region between these values and `root`; no larger one is looked for."""
        self._stops.update(stops)
        return self._lift(root)

    def release(self, root: ir.Node) -> None:
        """Forget a region that has been dealt with, and large weights, which can be read again."""
        region = self._regions.pop(root, None)
        for node in (root, *(region.nodes if region is not None else ())):
            known = self._meanings.get(node)
            if isinstance(known, Applied) and known.stencil.weight.nbytes > REMEMBERED:
                del self._meanings[node]

    def read(self, node: ir.Node) -> Linear:
        """The meaning of a node, which may not be part of a graph yet. Raises Decline if none."""
        with within_range():
            return meaning(node, self._readers)

    def linear(self, node: ir.Node) -> Linear:
        """The meaning of a node, read once. Raises Decline if it is not linear."""
        if node not in self._meanings:
            try:
                self._meanings[node] = self.read(node)
            except Decline as reason:
                self._meanings[node] = reason.bare()
        known = self._meanings[node]
        if isinstance(known, Decline):
            raise known.bare()
        return known

    def _lift(self, root: ir.Node) -> Region:
        linear = self.linear(root)
        if isinstance(linear, Applied) and origin_of(linear.source) is not None:
            raise Decline("NONLINEAR", "only what is behind it is linear")
        self._too_costly.clear()
        form = self._form_of(root)
        nodes, meanings, stops = self._inside(root)
        _require_layer_beside_means(meanings)
        if form.border_bias is not None:
            raise Decline("BORDER-BIAS", f"its bias is another {form.border_bias.border}")
        inside = set(nodes)
        for term in form.live:
            if root_value(term.source).producer() in inside:
                raise Decline("SHARED", f"{root_value(term.source).name} is read by a new node too")
        resized = form
        for rewrite in self._passes:
            resized = rewrite.resize(resized, self._cost)
        rounded, changed = self._border_lifter is None, resized is not form
        return Region(root, resized, nodes, meanings, tuple(stops.items()), rounded, changed)

    def _form_of(self, root: ir.Node) -> Affine:
        """The form of the output of `root`, grown as far as it goes."""
        forms: dict[ir.Value, Affine] = {}
        order = self._reachable(root)
        sums = flatten_sums(order, self.linear, self._stops)
        for node in reversed(order):
            output = node.outputs[0]
            if isinstance(self.linear(node), Summed) and node not in sums:
                continue  # its terms belong to the sum that reads it
            try:
                forms[output] = self._form(node, forms, sums.get(node, []), node is root)
            except Decline as reason:
                self._meanings[node] = reason.bare()
                if node is root:
                    raise
                self._stops[output] = reason.bare()
        return forms[root.outputs[0]]

    def _reachable(self, root: ir.Node) -> list[ir.Node]:
        """Nodes that could belong to the region, every node before the nodes it reads."""
        order, stack = [], [root]
        while stack:
            node = stack.pop()
            order.append(node)
            for value in operands(self.linear(node)):
                if self._may_pass(value):
                    stack.append(producer_of(value))
        return order

    def _may_pass(self, value: ir.Value) -> bool:
        """Whether the region may grow through `value`; if not, `_stops` has the reason."""
        if value in self._stops:
            return False
        try:
            self.linear(producer_of(value))
            reason = None if value in self._shared else why_shared(value)
        except Decline as not_linear:
            reason = not_linear.bare()
        if reason is not None:
            self._stops[value] = reason
        return reason is None

    def _form(
        self,
        node: ir.Node,
        forms: dict[ir.Value, Affine],
        terms: list[tuple[int, ir.Value]],
        is_root: bool,
    ) -> Affine:
        linear = self.linear(node)
        if isinstance(linear, Summed):
            signs, values = zip(*terms, strict=True)
            return self._recompute.cheapest_sum(node, signs, pop_forms(values, forms))
        if isinstance(linear, Joined):
            return self._builder.join(node, linear, pop_forms(linear.values, forms))
        if isinstance(linear, Transparent):
            return self._pushed_through(node, linear, forms)
        inner = forms.pop(linear.source, None)
        if inner is not None:
            try:
                return self._builder.compose(node, linear, inner)
            except Decline as reason:
                may_be = is_root and reason.code == "COST"  # elsewhere a sum may make up for it
                alone = self._behind_map_alone(node, linear) if may_be else None
                if alone is not None:
                    return alone
                self._stops[linear.source] = reason.bare()
                if reason.code == "COST":
                    self._too_costly[linear.source] = inner
        return self._builder.alone(node, linear)

    def _pushed_through(
        self, node: ir.Node, linear: Transparent, forms: dict[ir.Value, Affine]
    ) -> Affine:
        ((_, inner),) = pop_forms((linear.source,), forms)
        try:
            return push_through(node, linear, inner)
        except Decline:
            last = self._map_in(linear.source)
            if last is None or len(inner.terms) == 1:
                raise
            # not the whole sum, but the per-channel map behind it passes
            form = push_through(node, linear, form_of_operator(last, linear.source))
            self._stops[last.source] = Decline("NONLINEAR", "only a map of the channels passes")
            return form

    def _map_in(self, value: ir.Value) -> Applied | None:
        """The per-channel map that computes `value` from something the region has read; or None."""
        if value in self._stops:
            return None
        last = self.linear(producer_of(value))
        if not isinstance(last, Applied) or not last.stencil.geometry.is_diagonal:
            return None
        return None if last.source in self._stops else last

    def _behind_map_alone(self, node: ir.Node, linear: Applied) -> Affine | None:
        """`node` with the per-channel map in front of it, where more than that costs too much."""
        last = self._map_in(linear.source)
        if last is None:
            return None
        try:
            if isinstance(self.linear(producer_of(last.source)), Applied):
                return None  # the layer there takes the map
            form = form_of_operator(last, linear.source)
            composed = self._builder.compose(node, linear, form)
        except Decline:
            return None
        self._stops[last.source] = Decline("COST", "a region that takes it in would take longer")
        return composed

    def _inside(
        self, root: ir.Node
    ) -> tuple[tuple[ir.Node, ...], dict[ir.Node, Linear], dict[ir.Value, Decline]]:
        """(nodes, each after those that read it; their meanings; where the region ends and why)."""
        nodes: list[ir.Node] = []
        meanings: dict[ir.Node, Linear] = {}
        stops: dict[ir.Value, Decline] = {}
        stack = [(root, False)]
        while stack:
            node, is_left = stack.pop()
            linear = self.linear(node)
            if is_left:
                through = linear.through if isinstance(linear, Applied | Transparent) else ()
                nodes += [*(producer_of(value) for value in reversed(through)), node]
            if is_left or node in meanings:
                continue
            meanings[node] = linear
            stack.append((node, True))
            if node in self._builder.refusals:
                stops[node.outputs[0]] = self._builder.refusals[node]
            for value in operands(linear):
                if value in self._stops:
                    stops[value] = self._stops[value]
                else:
                    stack.append((producer_of(value), False))
        return tuple(reversed(nodes)), meanings, stops


def _require_layer_beside_means(meanings: Mapping[ir.Node, Linear]) -> None:
    """Decline where a mean over the channels would become a layer, and no layer is saved by it."""
    mixing = {n.op_type for n, linear in meanings.items() if isinstance(linear, Applied)}
    if "ReduceMean" in mixing and not mixing & set(LAYERS):
        raise Decline("NONLINEAR", "a mean over the channels has no layer beside it")


def _readers_of(passes: Sequence[Rewrite]) -> ReaderTable:
    """The readers that are always in use, then those of each pass, by operator type."""
    table: dict[str, list[Reader]] = defaultdict(list)
    for readers in (READERS, *(rewrite.readers() for rewrite in passes), LAST_READERS):
        for op_type, reader in readers.items():
            table[op_type].append(reader)
    return table
