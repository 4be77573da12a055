"""The driver: applies passes to a fixed point, and reports every decision.

Passes describe changes; only the driver edits the graph. It walks each graph from its outputs to
its inputs, so that the largest region around a node comes first and its weights are rounded once.
A region is replaced if its cheapest exact form costs less than the nodes that it has.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Container, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import onnx_ir as ir

from flatfold.passes.cost.model import MARGIN, Cost, CostModel
from flatfold.passes.cost.profiles import PROFILES, Profile
from flatfold.passes.decline import Decline
from flatfold.passes.lifting.lifter import Lifter
from flatfold.passes.lifting.readers import Readers, cost_of_forms, readers_of
from flatfold.passes.lifting.splits import close_splits, open_splits
from flatfold.passes.lifting.unread import NOTE, meets_unread
from flatfold.passes.lowering.emit import lower
from flatfold.passes.lowering.plan import cost_of_nodes, form_cost
from flatfold.passes.lowering.replacement import (
    Names,
    Replacement,
    initializer,
    remove_unused_initializers,
)
from flatfold.passes.lowering.rounding import keep_exact
from flatfold.passes.potential import Potential, potential_of
from flatfold.passes.reading.activations import activation_at
from flatfold.passes.reading.composites import mark_composites
from flatfold.passes.reading.deferred import origin_of
from flatfold.passes.reading.meaning import Applied, Summed
from flatfold.passes.reading.norms import norm_at
from flatfold.passes.remark import (
    HINTS,
    REPLACED_KEY,
    REWRITE_KEY,
    SCOPE_KEY,
    TAKEN_BACK,
    Remark,
    census,
    origins,
)
from flatfold.passes.rewrite import (
    Change,
    GraphRewrite,
    LocalRewrite,
    Proposal,
    Region,
    Reweighted,
    Rewrite,
)

TIE = 1e-9
OLDEST_OPSET = 7  # before it, Add and Mul broadcast by other rules
MOST_SWEEPS = 100  # two or three are usual

SCALES = ("Add", "Div", "Mul", "Neg", "Sub", "Sum")

# Reasons that only say where linearity ends, or that all is well: no remark.
SILENT = ("NONLINEAR", "INPUT", "TRIVIAL", "OFF")

Check = Callable[..., None]  # of the changes that are made together


@dataclass
class Pipeline:
    """Applies passes until nothing changes. `check` sees every change before it is made, and all
    those together that are made together.

    `no_kernel` has operators with types that cannot be run, and that no rewrite brings in.
    `taken_back` has changes that are not made, each by its rewrite and the node that it starts at.
    `keeps_exact`: new constants remember what they were rounded from, see `keep_exact`.
    """

    rewrites: Sequence[Rewrite | LocalRewrite | GraphRewrite]
    profile: Profile = field(default_factory=lambda: PROFILES["default"])
    check: Check | None = None
    no_kernel: Collection[tuple[str, ir.DataType]] = ()
    taken_back: Collection[tuple[str, str]] = ()
    keeps_exact: bool = False

    def run(self, model: ir.Model) -> list[Remark]:
        """Rewrite `model` in place; the remarks say what was done, and what was left and why."""
        applied: list[Remark] = []
        missed: list[Remark] = []
        opset = model.opset_imports.get("", 0)
        if 0 < opset < OLDEST_OPSET:
            return [self._left_alone(model, opset)]
        names = Names.of(model, keeps_exact=self.keeps_exact)
        for graph in model.graphs():
            splits = open_splits(graph, names)
            try:
                done, left = self._run_to_fixed_point(graph, names)
                more = self._reweigh(graph, names)
            finally:
                close_splits(graph, splits)
            applied += [*done, *(remark for remark in more if remark.applied)]
            missed += [*left, *(remark for remark in more if not remark.applied)]
        return _told_once(applied, NOTE) + missed

    def _left_alone(self, model: ir.Model, opset: int) -> Remark:
        reason = f"opset {opset} is left as it is, {OLDEST_OPSET} and later are rewritten"
        first, place = self.rewrites[0].name if self.rewrites else "", model.graph.name or ""
        return Remark(first, place, False, "OLD-OPSET", reason, hint=HINTS["OLD-OPSET"])

    def _run_to_fixed_point(
        self, graph: ir.Graph, names: Names
    ) -> tuple[list[Remark], list[Remark]]:
        """Sweep until nothing changes: what was applied, and what the last sweep left."""
        if all(isinstance(rewrite, GraphRewrite) for rewrite in self.rewrites):
            return [], []
        before = _Sweep(self, graph, names)
        before.run_first()
        applied: list[Remark] = list(before.applied)
        missed: list[Remark] = []
        for _ in range(MOST_SWEEPS):
            sweep = _Sweep(self, graph, names)
            changed = sweep.run() or sweep.run_last()
            applied += sweep.applied
            missed = sweep.missed
            if not changed:
                return applied, missed
        reason = f"{MOST_SWEEPS} sweeps were made, and the last one still found something"
        why, first, place = Decline("SWEEPS", reason), self.rewrites[0].name, graph.name or ""
        missed.append(Remark(first, place, False, why.code, reason, hint=HINTS[why.code]))
        return applied, missed  # each change lowered the potential: this is the best so far

    def _reweigh(self, graph: ir.Graph, names: Names) -> list[Remark]:
        """Give nodes other constants, once: such a change has no cost to lower."""
        remarks: list[Remark] = []
        for rewrite in self.rewrites:
            if not isinstance(rewrite, GraphRewrite):
                continue
            kept: dict[ir.Node, Decline] = {}
            while True:  # each time with one node more that keeps its constants
                plan, said = rewrite.plan(graph, kept, names.opset)
                try:
                    self._check_together(plan)
                    break
                except Decline as why:
                    if why.change is None or why.change.region.root in kept:
                        raise
                    kept[why.change.region.root] = why.bare()
            for one in plan:
                _exchange(graph, rewrite.name, one, names)
            remarks += said
        remove_unused_initializers(graph)
        return remarks

    def _check_together(self, plan: Sequence[Reweighted]) -> None:
        try:
            if self.check is not None:
                self.check(*(one.change for one in plan))
        finally:
            for one in plan:
                one.change.replacement.discard()


class _Sweep:
    """One walk over one graph."""

    def __init__(self, pipeline: Pipeline, graph: ir.Graph, names: Names) -> None:
        self.pipeline = pipeline
        self.graph = graph
        self.names = names
        self.cost = CostModel(pipeline.profile)
        self.rewrites = [r for r in pipeline.rewrites if isinstance(r, Rewrite)]
        self.local_rewrites = [r for r in pipeline.rewrites if isinstance(r, LocalRewrite)]
        self.lifter = Lifter(self.rewrites, self.cost)
        self.default = pipeline.rewrites[0].name if pipeline.rewrites else ""
        self.settled: set[ir.Node] = set()
        self.noted: set[tuple[ir.Value, str]] = set()
        self.applied: list[Remark] = []
        self.missed: list[Remark] = []

    def run(self) -> bool:
        """Visit every node, last one first; whether anything changed."""
        mark_composites(self.graph, (activation_at, norm_at))
        for node in list(reversed(self.graph)):
            if node.graph is not None and node not in self.settled:
                self._visit(node)
            if node.graph is not None:
                self._visit_readers(node)
            for rewrite in self.local_rewrites:
                if node.graph is not None and not rewrite.last:
                    self._visit_locally(rewrite, node)
        remove_unused_initializers(self.graph)
        return bool(self.applied)

    def run_first(self) -> None:
        """Visit every node with the local rewrites that come first."""
        self._run_alone([rewrite for rewrite in self.local_rewrites if rewrite.first])

    def run_last(self) -> bool:
        """Visit every node with those that come last; whether anything changed."""
        self._run_alone([rewrite for rewrite in self.local_rewrites if rewrite.last])
        remove_unused_initializers(self.graph)
        return bool(self.applied)

    def _run_alone(self, rewrites: Sequence[LocalRewrite]) -> None:
        for rewrite in rewrites:
            for node in list(reversed(self.graph)):
                if node.graph is not None:
                    self._visit_locally(rewrite, node)

    def _visit(self, node: ir.Node) -> None:
        missed = Remark(self.default, node.name or "", False, "", "")
        try:
            region = self.lifter.lift(node)
            rewrite = self._rewrite_for(region)
            before = cost_of_nodes(region.meanings, self.cost)
            after = form_cost(region.form, self.cost)
            missed = replace(missed, rewrite=rewrite.name, before=before, after=after)
            explained = self._note_stops(region, missed)
            if explained and len(region.nodes) == 1:
                return  # the reason is known; a second remark would only repeat it
            if all(isinstance(linear, Summed) for linear in region.meanings.values()):
                self.settled.update(region.nodes)  # a sum in a sum that gains nothing gains nothing
            self._change(rewrite, region, before, after)
        except Decline as why:
            self._note(missed, self._left_alone(node) if why.code == "TRIVIAL" else why)
        finally:
            self.lifter.release(node)

    def _change(self, rewrite: Rewrite, region: Region, before: Cost, after: Cost) -> None:
        """Replace the region by its cheapest form. Raises Decline."""
        rewrite.accept(region)
        _require_gain(region, before, after, region.margin)
        replacement = lower(region.form, region.output, self.names, self.cost)
        proposal = Proposal(region, replacement, before, after)
        self._require_kernels(proposal)
        if _is_same(proposal):
            replacement.discard()
            raise Decline("TRIVIAL", "it already has its cheapest form")
        self._require_descent([proposal])
        self._apply(rewrite.name, [(proposal, lambda: self._replayed(region))])

    def _visit_readers(self, node: ir.Node) -> None:
        """Give a map of the channels to every layer that reads it, where that is all of them."""
        missed = Remark(self.default, node.name or "", False, "", "")
        try:
            readers = readers_of(node, self.lifter.linear, self.lifter.read)
            regions = [self._region_of(layer, node, readers) for layer in readers.layers]
            meanings = {n: known for region in regions for n, known in region.meanings.items()}
            before = cost_of_nodes(meanings, self.cost)
            after = cost_of_forms([region.form for region in regions], self.cost)
            rewrite = self._rewrite_for(regions[0])
            missed = replace(missed, rewrite=rewrite.name, before=before, after=after)
            _require_gain(regions[0], before, after, regions[0].margin)
            self._change_together(rewrite, regions, readers, (before, after))
        except Decline as why:
            self._note(missed, why)

    def _region_of(self, layer: ir.Node, node: ir.Node, readers: Readers) -> Region:
        """The region between what the map `node` reads and one of its layers."""
        lifter = Lifter(self.rewrites, self.cost, shared=readers.values)
        ends = Decline("NONLINEAR", f"{readers.source.name} is where the map begins")
        region = lifter.between(layer, [(readers.source, ends)])
        if node not in region.nodes:
            raise Decline("NONLINEAR", f"{layer.name} cannot take the map")
        return region

    def _change_together(
        self,
        rewrite: Rewrite,
        regions: Sequence[Region],
        readers: Readers,
        costs: tuple[Cost, Cost],
    ) -> None:
        """Replace each region; what they have in common is no longer read. Raises Decline."""
        proposals: list[Proposal] = []
        try:
            for region in regions:
                rewrite.accept(region)
                new = lower(region.form, region.output, self.names, self.cost)
                proposals.append(Proposal(region, new, *costs))
                self._require_kernels(proposals[-1])
        except Decline:
            for proposal in proposals:
                proposal.replacement.discard()
            raise
        self._require_descent(proposals)
        again = [partial(self._replayed, region, readers.values) for region in regions]
        self._apply(rewrite.name, list(zip(proposals, again, strict=True)))

    def _left_alone(self, node: ir.Node) -> Decline:
        """Why a scale or an offset stays a node of its own; TRIVIAL of any other node."""
        region = self.lifter.lift(node)
        ends = [f"{value.name}: {why.reason}" for value, why in region.stops if why.code != "INPUT"]
        if len(region.nodes) == 1 and node.op_type in SCALES and ends:
            return Decline("ALONE", f"no layer to fold it into: {'; '.join(ends)}")
        return Decline("TRIVIAL", "it already has its cheapest form")

    def _require_kernels(self, proposal: Proposal) -> None:
        """Decline new nodes that the target has no kernel for, where the old ones have one."""
        dtype, old = proposal.region.output.dtype, {n.op_type for n in proposal.region.nodes}
        for node in proposal.replacement.nodes:
            missing = (node.op_type, dtype) in self.pipeline.no_kernel
            if missing and node.op_type not in old and dtype is not None:
                proposal.replacement.discard()
                raise Decline("DTYPE", f"nothing runs a {node.op_type} of {dtype.name}")

    def _replayed(self, region: Region, shared: Container[ir.Value] = ()) -> Replacement:
        """The nodes for a region, computed once more from the graph; none is in the graph yet."""
        lifter = Lifter(self.rewrites, self.cost, region.border_rounded, shared)
        nodes = set(region.nodes)
        stops = ((value, why) for value, why in region.stops if value.producer() not in nodes)
        form, names = lifter.between(region.root, stops).form, Names(set(), self.names.opset)
        return lower(form, region.output, names, self.cost)

    def _visit_locally(self, rewrite: LocalRewrite, node: ir.Node) -> None:
        missed = Remark(rewrite.name, node.name or "", False, "", "")
        try:
            proposal = rewrite.match(node, self.names, self.cost)
            missed = replace(missed, before=proposal.before, after=proposal.after)
            try:
                region = proposal.region
                _require_gain(region, proposal.before, proposal.after, region.margin)
            except Decline:
                proposal.replacement.discard()
                raise
            self._require_kernels(proposal)
            self._require_descent([proposal])
            scratch = Names(set(), self.names.opset)
            match, cost = rewrite.match, self.cost
            again = lambda: match(node, scratch, cost).replacement  # noqa: E731
            self._apply(rewrite.name, [(proposal, again)])
        except Decline as why:
            self._note(missed, why)

    def _rewrite_for(self, region: Region) -> Rewrite:
        """The first pass that claims the region."""
        for rewrite in self.rewrites:
            if rewrite.claims(region):
                return rewrite
        raise Decline("OFF", "no pass that is switched on claims it")

    def _require_descent(self, proposals: Sequence[Proposal]) -> None:
        """Decline unless the new nodes have less potential than the old, as they will be read."""
        old = potential_of(
            list(dict.fromkeys(node for one in proposals for node in one.region.nodes)),
            self.lifter.linear,
            self.cost,
        )
        least = Potential()
        for one in proposals:
            region, new = one.region, one.replacement
            if new.nodes and new.output.producer() in new.nodes:
                new.output.shape = region.output.shape  # what it will have
            least += potential_of(new.nodes, self.lifter.read, self.cost)
        if least < old:
            return
        for one in proposals:
            one.replacement.discard()
        if least == old:
            raise Decline("TRIVIAL", "it already has its cheapest form")
        raise Decline("COST", f"exact, but {least.time / max(old.time, 1):.2f}x the time")

    def _apply(
        self, name: str, proposals: Sequence[tuple[Proposal, Callable[[], Replacement]]]
    ) -> None:
        """Make changes, all or none; each with what computes its nodes once more."""
        changes = [Change(name, one.region, one.replacement, again) for one, again in proposals]
        try:
            if any((name, one.region.root.name) in self.pipeline.taken_back for one in changes):
                raise Decline("SLOWER", TAKEN_BACK)
            unread = [meets_unread(change) for change in changes]
            if self.pipeline.check is not None:
                self.pipeline.check(*changes)
        except Decline:
            for change in changes:
                change.replacement.discard()
            raise
        for change, (proposal, _), is_unread in zip(changes, proposals, unread, strict=True):
            self._make(change, proposal, is_unread)

    def _make(self, change: Change, proposal: Proposal, is_unread: bool) -> None:
        region, replacement = change.region, change.replacement
        message = f"{census(region.nodes)} -> {census(replacement.nodes) or 'nothing'}"
        for linear in region.meanings.values():
            if isinstance(linear, Applied) and linear.warning:
                message += f"; note: {linear.warning}"
        if is_unread:
            message += f"; {NOTE}"
        before, after = proposal.before, proposal.after
        if after.nodes > before.nodes:
            message += f"; more nodes, {after.seconds / before.seconds:.2f}x the time by estimate"
        names, node = origins(region.nodes), region.root.name or ""
        self._replace(change, names)
        remark = Remark(change.rewrite, node, True, "APPLIED", message, before, after, names)
        self.applied.append(remark)

    def _note_stops(self, region: Region, missed: Remark) -> bool:
        """A remark for each stop that is a near miss; whether there was one."""
        explained = False
        for value, why in region.stops:
            explained = explained or why.code not in SILENT
            key = (value, why.code)  # the other readers of a value have the same reason
            if key not in self.noted:
                self.noted.add(key)
                where = "" if why.reason.startswith(value.name or "?") else f"{value.name}: "
                self._note(replace(missed, before=Cost(), after=Cost()), why, where)
        return explained

    def _note(self, missed: Remark, why: Decline, where: str = "") -> None:
        if why.code not in SILENT:
            hint = HINTS.get(why.code, "")
            remark = replace(missed, code=why.code, reason=where + why.reason, hint=hint)
            self.missed.append(remark)

    def _replace(self, change: Change, replaced: tuple[str, ...]) -> None:
        region, new = change.region, change.replacement
        scope = region.root.metadata_props.get(SCOPE_KEY)
        for node in new.nodes:
            node.metadata_props[REWRITE_KEY] = change.rewrite
            node.metadata_props[REPLACED_KEY] = json.dumps(replaced)
            if scope is not None:
                node.metadata_props[SCOPE_KEY] = scope
        for value in new.initializers:
            self.graph.register_initializer(value)
        read = [value for node in region.nodes for value in node.inputs if value is not None]
        old = region.nodes if _is_all_that_reads(region) else [region.root]
        if new.nodes:
            ir.convenience.replace_nodes_and_values(
                self.graph, region.root, old, new.nodes, [region.output], [new.output]
            )
        else:
            ir.convenience.replace_all_uses_with(region.output, new.output)
            self.graph.remove(old, safe=True)
        _remove_dead_code(self.graph, read)


def _exchange(graph: ir.Graph, rewrite: str, one: Reweighted, names: Names) -> None:
    """Put new constants in place of the node's own, which others may read too."""
    for index, array in one.constants.items():
        old = one.node.inputs[index]
        new = initializer(names.fresh(f"{'' if old is None else old.name}.{rewrite}"), array)
        if index in one.exact and new.const_value is not None:
            keep_exact(new.const_value, one.exact[index])
        graph.register_initializer(new)
        one.node.replace_input_with(index, new)
    if one.constants:
        one.node.metadata_props[REPLACED_KEY] = json.dumps(origins([one.node]))
        one.node.metadata_props[REWRITE_KEY] = rewrite


def _told_once(remarks: Sequence[Remark], note: str) -> list[Remark]:
    """The remarks with what is true of the whole model said in the first that says it."""
    told, result = False, []
    for remark in remarks:
        says = note in remark.reason
        shorter = remark.reason.replace(f"; {note}", "") if told else remark.reason
        result.append(replace(remark, reason=shorter))
        told = told or says
    return result


def _is_same(proposal: Proposal) -> bool:
    """Whether the same operators would do the same work, so that only the estimate is better."""
    before, after = proposal.before, proposal.after
    same_work = (before.macs, before.parameters) == (after.macs, after.parameters)
    old, new = proposal.region.nodes, proposal.replacement.nodes
    return same_work and sorted(n.op_type for n in old) == sorted(n.op_type for n in new)


def _require_gain(region: Region, before: Cost, after: Cost, margin: float = 0.0) -> None:
    """Decline unless `after` takes less time than `before`; surely less, by MARGIN for each node
    that it has more.

    As much time will do, up to the last bits, where an operator hands its parameters on.
    """
    ratio = after.seconds / before.seconds if before.seconds else 1.0
    if abs(ratio - 1) < TIE:
        handed_on = any(origin_of(term.source) is not None for term in region.form.terms)
        if handed_on and after.parameters < before.parameters and after.nodes <= before.nodes:
            return
        raise Decline("TRIVIAL", "it already has its cheapest form")
    if ratio > 1 + margin:
        raise Decline("COST", f"exact, but {ratio:.2f}x the time")
    more = max(after.nodes - before.nodes, 0)
    if more and ratio > 1 - MARGIN * more:
        raise Decline(
            "COST", f"exact, but {ratio:.3f}x the time is too little for {more} more nodes"
        )


def _is_all_that_reads(region: Region) -> bool:
    """Whether nothing outside the region reads what its nodes compute for each other."""
    inside, inner = set(region.nodes), [n for n in region.nodes if n is not region.root]
    return all(use.node in inside for n in inner for value in n.outputs for use in value.uses())


def _remove_dead_code(graph: ir.Graph, values: list[ir.Value]) -> None:
    """Remove the nodes that compute `values`, and so on upwards, if nothing reads them any more."""
    while values:
        node = values.pop().producer()
        if node is None or node.graph is not graph:
            continue
        if any(value.uses() or value.is_graph_output() for value in node.outputs):
            continue
        values += [value for value in node.inputs if value is not None]
        graph.remove(node, safe=True)
