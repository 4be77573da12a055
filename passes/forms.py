"""The form of one operator's output, from the forms of what it reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from flatfold.passes import layout
from flatfold.passes.affine import Affine
from flatfold.passes.bends import bent
from flatfold.passes.carriers import carry
from flatfold.passes.cost import Profile
from flatfold.passes.geometry import Decline
from flatfold.passes.reading import Applied, Carried, Joined
from flatfold.passes.sums import apply, end_to_end, side_by_side, total

Operand = tuple[ir.Value, Affine]


@dataclass
class Forms:
    """Makes forms; `refusals` holds why terms over one source stayed apart, by operator."""

    profile: Profile
    composing: bool
    refusals: dict[ir.Node, Decline]

    def of_sum(self, node: ir.Node, signs: Sequence[int], operands: list[Operand]) -> Affine:
        """sum of sign * operand."""
        values = [value for value, _ in operands]
        inners = layout.same_layout(operands)
        layout.require_equal_sizes(list(zip(values, inners, strict=True)))
        form, refusal = total(zip(signs, inners, strict=True), self.profile)
        return self._noted(node, bent(form, node.outputs[0].dtype), refusal)

    def of_join(self, node: ir.Node, linear: Joined, operands: list[Operand]) -> Affine:
        """The operands side by side, along the channels or along a spatial axis."""
        inners, by_channel = layout.joined(operands, linear.axis)
        pixels = layout.form_of(inners[0].terms, None, node.outputs[0]).pixels
        if by_channel:
            form, refusal = side_by_side(inners, pixels, self.profile)
        else:
            moves = layout.places(linear.values, linear.axis)
            form, refusal = end_to_end(inners, moves, pixels, self.profile)
        return self._noted(node, form, refusal)

    def _noted(self, node: ir.Node, form: Affine, refusal: Decline | None) -> Affine:
        if refusal is not None:
            self.refusals[node] = refusal
        return form

    def carried(self, node: ir.Node, linear: Carried, inner: Affine) -> Affine:
        """The map in front of the operator, behind it."""
        return carry(node, linear, inner)

    def composed(self, node: ir.Node, linear: Applied, inner: Affine) -> Affine:
        """The operator after what computes its input."""
        pixels = layout.alone(linear, node.outputs[0]).pixels
        outer, inner = layout.aligned(linear, inner, linear.source)
        layers = not outer.geometry.is_diagonal and any(
            not term.stencil.geometry.is_diagonal for term in inner.terms
        )
        if layers and not self.composing:
            raise Decline("OFF", "composing layers is switched off")
        sizes = layout.sizes_of(linear.source, outer.geometry.axes)
        return apply(outer, inner, sizes, pixels, self.profile)
