"""A sum over what its operands are computed from, where that is cheaper than over where they end.

Operands end where composing costs more than it saves, and at values that several nodes read. In a
sum both may be otherwise: a chain that is dear alone is nothing once its kernel is part of a larger
one, and a value whose readers are all in the sum need not be computed at all (the small kernels of
Shift-ConvNets, each of which is moved to many places).
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


@dataclass
class Recompute:
    """`cuts`: where forms end and why; `dear`: the forms of values that were dear to compose.

    `inner_of`: the form of any other value; `inside`: the nodes of the region below a node.
    """

    forms: FormBuilder
    cuts: dict[ir.Value, Decline]
    dear: dict[ir.Value, Affine]
    inner_of: Callable[[ir.Value], Affine]
    inside: Callable[[ir.Node], Sequence[ir.Node]]

    def best_sum(self, node: ir.Node, signs: Sequence[int], operands: list[Operand]) -> Affine:
        """The cheapest form of the sum; values that it looks through leave `cuts`."""
        ends = dict.fromkeys(term.source for _, form in operands for term in form.terms)
        asked = [v for v in ends if v in self.dear or self._is_shared(v)]
        form = self.forms.of_sum(node, signs, operands, consume=not asked)
        found = self._all_open(node, signs, operands, form) if asked else None
        if found is not None:
            return found
        for value in asked:
            with contextlib.suppress(Decline):
                inner = self._worth_it(node, operands, value)
                changed = [(v, self.forms.opened(node, f, value, inner)) for v, f in operands]
                other = self.forms.of_sum(node, signs, changed, consume=False)
                if self._is_cheaper(other, [form, inner]):
                    del self.cuts[value]
                    operands, form = changed, other
        return form

    def _is_cheaper(self, form: Affine, others: Sequence[Affine]) -> bool:
        """Whether one form costs less than several."""
        apart = sum(form_cost(other, self.forms.profile).seconds for other in others)
        return form_cost(form, self.forms.profile).seconds < apart

    def _all_open(
        self, node: ir.Node, signs: Sequence[int], operands: list[Operand], form: Affine
    ) -> Affine | None:
        """The sum over what is left when every such value is looked through, if it is cheaper."""
        replaced, opened = [form], {}
        tried: set[ir.Value] = set()
        while True:
            value = self._ready(node, operands, tried)
            if value is None:
                break
            tried.add(value)
            why = self.cuts[value]
            with contextlib.suppress(Decline):
                inner = self._inner(node, value)
                operands = [(v, self.forms.opened(node, f, value, inner)) for v, f in operands]
                opened[value] = why
                replaced.append(inner)
                del self.cuts[value]
        if not opened:
            return None
        with contextlib.suppress(Decline):
            other = self.forms.of_sum(node, signs, operands, consume=False)
            if self._is_cheaper(other, replaced):
                return other
        self.cuts.update(opened)
        return None

    def _ready(
        self, node: ir.Node, operands: list[Operand], tried: set[ir.Value]
    ) -> ir.Value | None:
        """A value not yet tried that is dear, or else one whose readers are all inside by now."""
        ends = dict.fromkeys(term.source for _, f in operands for term in f.terms)
        asked = [value for value in ends if value not in tried]
        dear = next((value for value in asked if value in self.dear), None)
        shared = [value for value in asked if self._is_shared(value)]
        if dear is not None or not shared:
            return dear
        inside = set(self.inside(node))
        return next((value for value in shared if _readers(value) <= inside), None)

    def _is_shared(self, value: ir.Value) -> bool:
        return value in self.cuts and self.cuts[value].code == "SHARED"

    def _worth_it(self, node: ir.Node, operands: list[Operand], value: ir.Value) -> Affine:
        """What `value` is computed from. Decline if nothing can come of looking through it."""
        inner = self._inner(node, value)
        beside = {t.source for _, f in operands for t in f.terms} - {value}
        if value in self.dear and beside.isdisjoint(term.source for term in inner.terms):
            raise Decline("SOURCES", "nothing beside it reads the same values")
        return inner

    def _inner(self, node: ir.Node, value: ir.Value) -> Affine:
        """What `value` is computed from. Decline if somebody else reads it."""
        if value in self.dear:
            return self.dear[value]
        if not _readers(value) <= set(self.inside(node)):
            raise Decline("SHARED", f"{value.name} is read elsewhere too")
        return self.inner_of(value)


def _readers(value: ir.Value) -> set[ir.Node]:
    return {use.node for use in value.uses()}
