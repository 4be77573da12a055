"""The form of one operator's output, from the forms of what it reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from flatfold.passes import layout, planes
from flatfold.passes.affine import Affine
from flatfold.passes.bends import bent
from flatfold.passes.cost import Profile
from flatfold.passes.geometry import Decline
from flatfold.passes.reading import Applied, Joined
from flatfold.passes.rounding import ROUNDOFF
from flatfold.passes.sums import Reading, apply, end_to_end, side_by_side, total

Operand = tuple[ir.Value, Affine]


@dataclass
class Forms:
    """Makes forms; `refusals` holds why terms over one source stayed apart, by operator."""

    profile: Profile
    composing: bool
    planes: bool
    refusals: dict[ir.Node, Decline]

    def of_sum(
        self, node: ir.Node, signs: Sequence[int], operands: list[Operand], consume: bool = True
    ) -> Affine:
        """sum of sign * operand; `consume`: the operands are not needed afterwards."""
        values = [value for value, _ in operands]
        inners = layout.same_layout(operands)
        layout.require_equal_sizes(list(zip(values, inners, strict=True)))
        sizes = layout.sizes_of(node.outputs[0], inners[0].geometry.axes)
        form, refusal = total(
            list(zip(signs, inners, strict=True)), self.profile, sizes, consume=consume
        )
        return self._noted(node, bent(form, node.outputs[0].dtype), refusal)

    def opened(self, node: ir.Node, form: Affine, value: ir.Value, inner: Affine) -> Affine:
        """The form over what `value` is computed from, wherever it reads `value`."""
        kept = tuple(term for term in form.terms if term.source is not value)
        if len(kept) == len(form.terms):
            return form
        axes = form.geometry.axes
        inner = layout.recast(inner, value, axes)
        parts = [(1, replace(form, terms=kept))]
        for term in form.terms:
            if term.source is value:
                how = replace(self._reading(value, axes, form.pixels), dear=True)
                parts.append((1, apply(term.stencil, inner, how)))
        sizes = layout.sizes_of(node.outputs[0], axes)
        return total(parts, self.profile, sizes, consume=False)[0]

    def of_join(self, node: ir.Node, linear: Joined, operands: list[Operand]) -> Affine:
        """The operands side by side, along the channels or along a spatial axis."""
        inners, by_channel = layout.joined(operands, linear.axis)
        output, axes = node.outputs[0], inners[0].geometry.axes
        pixels = layout.form_of(inners[0].terms, None, output).pixels
        how = self._reading(output, axes, pixels)
        if not by_channel:
            moves = layout.places(linear, [value for value, _ in operands])
            biased = any(form.bias is not None and np.any(form.bias) for form in inners)
            fills = [  # zeros go without saying, but not beside a bias
                planes.strip(fill.numbers, axes, linear.axis - 2, fill.rows, fill.at_start)
                for fill in linear.fills
                if biased or np.any(fill.numbers)
            ]
            return self._noted(node, *end_to_end(inners, moves, how, fills))
        if linear.fills:
            raise Decline("CONSTANT", "constant channels are put beside data")
        return self._noted(node, *side_by_side(inners, pixels, self.profile))

    def _noted(self, node: ir.Node, form: Affine, refusal: Decline | None) -> Affine:
        if refusal is not None:
            self.refusals[node] = refusal
        return form

    def composed(self, node: ir.Node, linear: Applied, inner: Affine) -> Affine:
        """The operator after what computes its input."""
        pixels = layout.alone(linear, node.outputs[0]).pixels
        outer, inner = layout.aligned(linear, inner, linear.source)
        layers = not outer.geometry.is_diagonal and any(
            not term.stencil.geometry.is_diagonal for term in inner.terms
        )
        if layers and not self.composing:
            raise Decline("OFF", "composing layers is switched off")
        return apply(outer, inner, self._reading(linear.source, outer.geometry.axes, pixels))

    def _reading(self, value: ir.Value, axes: int, pixels: int) -> Reading:
        tolerance = 16 * ROUNDOFF.get(value.dtype, 0.0) if value.dtype is not None else 0.0
        sizes = layout.sizes_of(value, axes)
        return Reading(sizes, pixels, self.profile, self.planes, tolerance)
