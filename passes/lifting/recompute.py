"""A sum over what its operands are computed from, where that costs less than over their values.

Forms stop where composing costs more than it saves, and at values that several nodes read. In a
sum both may be worth it all the same: a chain that is too costly alone costs nothing once its
kernel is part of a larger one, and a value whose readers are all in the sum need not be computed
at all (the small kernels of Shift-ConvNets, each of which is moved to many places).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from flatfold.passes.decline import Decline
from flatfold.passes.lifting.forms import FormBuilder, Operand
from flatfold.passes.lowering.plan import form_cost
from flatfold.passes.reading.affine import Affine
from flatfold.passes.reading.deferred import root_value


@dataclass
class Recompute:
    """Sums that look through values which end a form.

    `stops`: values at which forms end, and why; `too_costly`: the forms of those among them that
    were too costly to compose; `form_of`: the form of any other value; `nodes_below`: the nodes of
    the region that ends in a node.
    """

    builder: FormBuilder
    stops: dict[ir.Value, Decline]
    too_costly: dict[ir.Value, Affine]
    form_of: Callable[[ir.Value], Affine]
    nodes_below: Callable[[ir.Node], Sequence[ir.Node]]

    def cheapest_sum(self, node: ir.Node, signs: Sequence[int], operands: list[Operand]) -> Affine:
        """The cheapest form of the sum; values that it looks through are taken out of `stops`."""
        sources = dict.fromkeys(term.source for _, form in operands for term in form.terms)
        candidates = [v for v in sources if v in self.too_costly or self._is_shared(v)]
        form = self.builder.sum(node, signs, operands, consume=not candidates)
        best = self._all_inlined(node, signs, operands, form) if candidates else None
        if best is not None:
            return best
        for value in candidates:
            with contextlib.suppress(Decline):
                inner = self._worth_inlining(node, operands, value)
                changed = [(v, self.builder.inline(node, f, value, inner)) for v, f in operands]
                other = self.builder.sum(node, signs, changed, consume=False)
                if self._is_cheaper(other, [form, inner]):
                    del self.stops[value]
                    operands, form = changed, other
        return form

    def _is_cheaper(self, form: Affine, others: Sequence[Affine]) -> bool:
        """Whether one form costs less than several."""
        total = sum(form_cost(other, self.builder.cost).seconds for other in others)
        return form_cost(form, self.builder.cost).seconds < total

    def _all_inlined(
        self, node: ir.Node, signs: Sequence[int], operands: list[Operand], form: Affine
    ) -> Affine | None:
        """The sum with every such value looked through, if it is cheaper."""
        replaced, inlined = [form], {}
        tried: set[ir.Value] = set()
        while True:
            value = self._ready(node, operands, tried)
            if value is None:
                break
            tried.add(value)
            reason = self.stops[value]
            with contextlib.suppress(Decline):
                inner = self._inner(node, operands, value)
                operands = [(v, self.builder.inline(node, f, value, inner)) for v, f in operands]
                inlined[value] = reason
                replaced.append(inner)
                del self.stops[value]
        if not inlined:
            return None
        with contextlib.suppress(Decline):
            other = self.builder.sum(node, signs, operands, consume=False)
            if self._is_cheaper(other, replaced):
                return other
        self.stops.update(inlined)
        return None

    def _ready(
        self, node: ir.Node, operands: list[Operand], tried: set[ir.Value]
    ) -> ir.Value | None:
        """An untried value that was too costly, or else one whose readers are all below by now."""
        sources = dict.fromkeys(term.source for _, f in operands for term in f.terms)
        untried = [value for value in sources if value not in tried]
        costly = next((value for value in untried if value in self.too_costly), None)
        shared = [value for value in untried if self._is_shared(value)]
        if costly is not None or not shared:
            return costly
        below = set(self.nodes_below(node))
        return next((value for value in shared if _readers(value) <= below), None)

    def _is_shared(self, value: ir.Value) -> bool:
        return value in self.stops and self.stops[value].code == "SHARED"

    def _worth_inlining(self, node: ir.Node, operands: list[Operand], value: ir.Value) -> Affine:
        """The form of `value`. Decline if nothing can come of looking through it."""
        inner = self._inner(node, operands, value)
        others = {t.source for _, f in operands for t in f.terms} - {value}
        if value in self.too_costly and others.isdisjoint(term.source for term in inner.terms):
            raise Decline("SOURCES", "no other term reads the same values")
        return inner

    def _inner(self, node: ir.Node, operands: list[Operand], value: ir.Value) -> Affine:
        """The form of `value`. Decline if a node outside the sum reads it, or one that is deferred.

        What a deferred value is computed from has to stay.
        """
        sources = {term.source for _, f in operands for term in f.terms} - {value}
        if any(root_value(source) is value for source in sources):
            raise Decline("SHARED", f"{value.name} is read by a node that stays")
        if value in self.too_costly:
            return self.too_costly[value]
        if not _readers(value) <= set(self.nodes_below(node)):
            raise Decline("SHARED", f"{value.name} is read elsewhere too")
        return self.form_of(value)


def _readers(value: ir.Value) -> set[ir.Node]:
    return {use.node for use in value.uses()}
