"""The driver: applies rewrites to a fixed point, and says what became of them.

Rewrites describe; only the driver edits the graph. It walks each graph from its outputs to its
inputs, so the largest region around a node comes first and its weights are rounded once; a region
is replaced if its cheapest exact form costs less than the nodes it has.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import onnx_ir as ir

from flatfold.errors import PassError
from flatfold.passes.cost.model import Cost
from flatfold.passes.cost.profiles import PROFILES, Profile
from flatfold.passes.decline import Decline
from flatfold.passes.lifting.lifter import Lifter
from flatfold.passes.lifting.splits import close_splits, open_splits
from flatfold.passes.lowering.emit import lower
from flatfold.passes.lowering.plan import form_cost, nodes_cost
from flatfold.passes.reading.deferred import origin_of
from flatfold.passes.reading.meaning import Applied, Summed
from flatfold.passes.remark import (
    HINTS,
    REPLACED_KEY,
    REWRITE_KEY,
    SCOPE_KEY,
    Remark,
    census,
    origins,
)
from flatfold.passes.rewrite import (
    Change,
    LocalRewrite,
    Names,
    Proposal,
    Region,
    Replacement,
    Rewrite,
)


def names_of(model: ir.Model) -> set[str]:
    """Every name in use; a body of If or Loop sees the names around it, so all are one set."""
    names: set[str | None] = set()
    for graph in model.graphs():
        names.update(graph.initializers)
        names.update(value.name for value in graph.inputs)
        names.update(value.name for node in graph for value in node.outputs)
    return {name for name in names if name}


def remove_dead_code(graph: ir.Graph, values: list[ir.Value]) -> None:
    """Remove what computed `values`, and so on upwards, if nothing reads it any more."""
    while values:
        node = values.pop().producer()
        if node is None or node.graph is not graph:
            continue
        if any(value.uses() or value.is_graph_output() for value in node.outputs):
            continue
        values += [value for value in node.inputs if value is not None]
        graph.remove(node, safe=True)


def remove_unused_initializers(graph: ir.Graph) -> None:
    """Remove initializers that nothing reads."""
    for name, value in list(graph.initializers.items()):
        if not (value.uses() or value.is_graph_output() or value.is_graph_input()):
            del graph.initializers[name]


def replay(region: Region, allowed: frozenset[str], profile: Profile, opset: int) -> Replacement:
    """The nodes for a region, which ends where it ended; nothing of it is in the graph yet."""
    lifter = Lifter(allowed, profile, region.evened)
    nodes = set(region.nodes)
    ends = ((value, why) for value, why in region.boundaries if value.producer() not in nodes)
    return lower(lifter.form(region.root, ends), region.output, Names(set(), opset), profile)


TIE = 1e-9
OLDEST_OPSET = 7  # before it, Add and Mul broadcast by other rules
MOST_SWEEPS = 100  # two or three are usual; each one lowers the estimated time, or has fewer norms


Check = Callable[[Change], None]


@dataclass
class Pipeline:
    """Applies rewrites until nothing changes. `check` sees every change before it is made."""

    rewrites: Sequence[Rewrite | LocalRewrite]
    profile: Profile = field(default_factory=lambda: PROFILES["default"])
    check: Check | None = None

    def run(self, model: ir.Model) -> list[Remark]:
        """Rewrite `model` in place; the remarks say what was done and what was left and why."""
        applied: list[Remark] = []
        missed: list[Remark] = []
        opset = model.opset_imports.get("", 0)
        if 0 < opset < OLDEST_OPSET:
            return [self._left_alone(model, opset)]
        names = Names(names_of(model), opset)
        for graph in model.graphs():
            opened = open_splits(graph, names)
            try:
                done, left = self._settle(graph, names)
            finally:
                close_splits(graph, opened)
            applied += done
            missed += left
        return applied + missed

    def _left_alone(self, model: ir.Model, opset: int) -> Remark:
        why = Decline(
            "OLD-OPSET",
            f"opset {opset} is left as it is, {OLDEST_OPSET} and later are rewritten",
        )
        first, place = self.rewrites[0].name if self.rewrites else "", model.graph.name or ""
        return Remark(first, place, False, why.code, why.reason, hint=HINTS[why.code])

    def _settle(self, graph: ir.Graph, names: Names) -> tuple[list[Remark], list[Remark]]:
        """Sweep until nothing changes: what was applied, and what the last sweep left."""
        applied: list[Remark] = []
        for _ in range(MOST_SWEEPS):
            sweep = _Sweep(self, graph, names)
            changed = sweep.run()
            applied += sweep.applied
            if not changed:
                return applied, sweep.missed
        raise PassError(f"no fixed point after {MOST_SWEEPS} sweeps", where=graph.name or "")


class _Sweep:
    """One walk over one graph."""

    def __init__(self, pipeline: Pipeline, graph: ir.Graph, names: Names) -> None:
        self.pipeline = pipeline
        self.graph = graph
        self.by_kind = {r.kind: r for r in pipeline.rewrites if isinstance(r, Rewrite)}
        self.exchanges = [r for r in pipeline.rewrites if isinstance(r, LocalRewrite)]
        self.lifter = Lifter(frozenset(self.by_kind), pipeline.profile)
        self.default = pipeline.rewrites[0].name if pipeline.rewrites else ""
        self.names = names
        self.settled: set[ir.Node] = set()
        self.noted: set[tuple[ir.Value, str]] = set()
        self.applied: list[Remark] = []
        self.missed: list[Remark] = []

    def run(self) -> bool:
        """Visit every node, last one first; whether anything changed."""
        for node in list(reversed(self.graph)):
            if node.graph is not None and node not in self.settled:
                self._visit(node)
            for exchange in self.exchanges:
                if node.graph is not None:
                    self._exchange(exchange, node)
        remove_unused_initializers(self.graph)
        return bool(self.applied)

    def _visit(self, node: ir.Node) -> None:
        missed = Remark(self.default, node.name or "", False, "", "")
        try:
            region = self.lifter.lift(node)
            rewrite = self._rewrite_for(region)
            profile = self.pipeline.profile
            before, after = nodes_cost(region, profile), form_cost(region.form, profile)
            missed = replace(missed, rewrite=rewrite.name, before=before, after=after)
            told = self._note_boundaries(region, missed)
            if told and len(region.nodes) == 1:
                return  # the reason is known; that nothing came of it need not be said again
            if all(isinstance(linear, Summed) for linear in region.meanings.values()):
                self.settled.update(region.nodes)  # a sum in a sum that gains nothing gains nothing
            rewrite.accept(region)
            kinds, opset = frozenset(self.by_kind), self.names.opset
            _require_gain(region, before, after, region.margin)
            lowered = lower(region.form, region.output, self.names, profile)
            found = Proposal(region, lowered, before, after)
            if _is_same(found):
                lowered.discard()
                raise Decline("TRIVIAL", "it already has its cheapest form")
            self._apply(rewrite.name, found, lambda: replay(region, kinds, profile, opset))
        except Decline as why:
            self._note(missed, why)
        finally:
            self.lifter.release(node)

    def _exchange(self, exchange: LocalRewrite, node: ir.Node) -> None:
        missed = Remark(exchange.name, node.name or "", False, "", "")
        profile = self.pipeline.profile
        try:
            found = exchange.propose(node, self.names, profile)
            missed = replace(missed, before=found.before, after=found.after)
            try:
                _require_gain(found.region, found.before, found.after)
            except Decline:
                found.lowered.discard()
                raise
            scratch = Names(set(), self.names.opset)
            again = exchange.propose
            self._apply(exchange.name, found, lambda: again(node, scratch, profile).lowered)
        except Decline as why:
            self._note(missed, why)

    def _rewrite_for(self, region: Region) -> Rewrite:
        if region.kind not in self.by_kind:
            raise Decline("OFF", f"{region.kind} is switched off")
        return self.by_kind[region.kind]

    def _apply(self, name: str, found: Proposal, again: Callable[[], Replacement]) -> None:
        region, lowered = found.region, found.lowered
        change = Change(name, region, lowered, again)
        if self.pipeline.check is not None:
            try:
                self.pipeline.check(change)
            except Decline:
                lowered.discard()
                raise
        message = f"{census(region.nodes)} -> {census(lowered.nodes) or 'nothing'}"
        for linear in region.meanings.values():
            if isinstance(linear, Applied) and linear.warning:
                message += f"; note: {linear.warning}"
        names, node = origins(region.nodes), region.root.name or ""
        self._replace(change, names)
        costs = (found.before, found.after)
        self.applied.append(Remark(name, node, True, "APPLIED", message, *costs, names))

    def _note_boundaries(self, region: Region, missed: Remark) -> bool:
        """Why the region ends where it does, where that is a near miss; whether there was one."""
        told = False
        for value, why in region.boundaries:
            told = told or why.code not in _ENDS
            key = (value, why.code)  # the other readers of a value have the same one
            if key not in self.noted:
                self.noted.add(key)
                where = "" if why.reason.startswith(value.name or "?") else f"{value.name}: "
                self._note(replace(missed, before=Cost(), after=Cost()), why, where)
        return told

    def _note(self, missed: Remark, why: Decline, where: str = "") -> None:
        if why.code not in _ENDS:
            hint = HINTS.get(why.code, "")
            remark = replace(missed, code=why.code, reason=where + why.reason, hint=hint)
            self.missed.append(remark)

    def _replace(self, change: Change, replaced: tuple[str, ...]) -> None:
        region, new = change.region, change.lowered
        scope = region.root.metadata_props.get(SCOPE_KEY)
        for node in new.nodes:
            node.metadata_props[REWRITE_KEY] = change.rewrite
            node.metadata_props[REPLACED_KEY] = json.dumps(replaced)
            if scope is not None:
                node.metadata_props[SCOPE_KEY] = scope
        for value in new.initializers:
            self.graph.register_initializer(value)
        read = [value for node in region.nodes for value in node.inputs if value is not None]
        if new.nodes:
            ir.convenience.replace_nodes_and_values(
                self.graph, region.root, region.nodes, new.nodes, [region.output], [new.output]
            )
        else:
            ir.convenience.replace_all_uses_with(region.output, new.output)
            self.graph.remove(region.nodes, safe=True)
        remove_dead_code(self.graph, read)


def _is_same(found: Proposal) -> bool:
    """Whether the same operators would do the same work: nothing that a price could make better."""
    before, after = found.before, found.after
    work = (before.macs, before.parameters) == (after.macs, after.parameters)
    old, new = found.region.nodes, found.lowered.nodes
    return work and sorted(n.op_type for n in old) == sorted(n.op_type for n in new)


# Reasons that only say where linearity ends or that all is well; nobody needs to be told.
_ENDS = ("NONLINEAR", "INPUT", "TRIVIAL", "OFF")


def _require_gain(region: Region, before: Cost, after: Cost, margin: float = 0.0) -> None:
    """Less time; or as much, but for the last bits, where an operator gives its parameters away."""
    ratio = after.seconds / before.seconds if before.seconds else 1.0
    if abs(ratio - 1) < TIE:
        given = any(origin_of(term.source) is not None for term in region.form.terms)
        if given and after.parameters < before.parameters and after.nodes <= before.nodes:
            return
        raise Decline("TRIVIAL", "it already has its cheapest form")
    if ratio > 1 + margin:
        raise Decline("COST", f"exact, but {ratio:.2f}x the time")
