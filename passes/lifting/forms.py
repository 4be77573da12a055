"""The form of one operator's output, from the forms of what it reads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from flatfold.passes.collapse_activations import join_relu_and_identity
from flatfold.passes.cost.profiles import Profile
from flatfold.passes.decline import Decline
from flatfold.passes.lifting.sums import (
    CompositionContext,
    compose_form,
    concat_channels,
    concat_pixels,
    sum_forms,
)
from flatfold.passes.lowering.rounding import LARGEST, ROUNDOFF, within_range
from flatfold.passes.reading.affine import Affine
from flatfold.passes.reading.layout import (
    affine_form,
    align_layout,
    concat_offsets,
    form_of_operator,
    in_layout,
    joined_layout,
    leaf,
    require_equal_sizes,
    same_layout,
    sizes_read,
)
from flatfold.passes.reading.meaning import Applied, Joined
from flatfold.passes.stencil.border import edge_fill
from flatfold.passes.stencil.stencil import Stencil

Operand = tuple[ir.Value, Affine]

SLACK = 1e-6  # of a number that rounding has made larger


@dataclass
class FormBuilder:
    """Makes forms; `refusals` holds why terms over one source stayed apart, by operator."""

    profile: Profile
    composing: bool
    planes: bool
    refusals: dict[ir.Node, Decline]

    @within_range()
    def of_sum(
        self, node: ir.Node, signs: Sequence[int], operands: list[Operand], consume: bool = True
    ) -> Affine:
        """sum of sign * operand; `consume`: the operands are not needed afterwards."""
        values = [value for value, _ in operands]
        inners = same_layout(operands)
        require_equal_sizes(list(zip(values, inners, strict=True)))
        sizes = sizes_read(node.outputs[0], inners[0].geometry.axes)
        before = _reach(*inners)  # of weights that the total may be summed into
        form, refusal = sum_forms(
            list(zip(signs, inners, strict=True)), self.profile, sizes, consume=consume
        )
        _require_no_growth(node, form, before)
        return self._noted(node, join_relu_and_identity(form, node.outputs[0].dtype), refusal)

    @within_range()
    def opened(self, node: ir.Node, form: Affine, value: ir.Value, inner: Affine) -> Affine:
        """The form over what `value` is computed from, wherever it reads `value`."""
        kept = tuple(term for term in form.terms if term.source is not value)
        if len(kept) == len(form.terms):
            return form
        axes = form.geometry.axes
        inner = in_layout(inner, value, axes)
        parts = [(1, replace(form, terms=kept))]
        for term in form.terms:
            if term.source is value:
                how = replace(self._reading(value, axes, form.pixels), dear=True)
                parts.append((1, _applied(node, term.stencil, inner, how)))
        sizes = sizes_read(node.outputs[0], axes)
        return sum_forms(parts, self.profile, sizes, consume=False)[0]

    @within_range()
    def of_join(self, node: ir.Node, linear: Joined, operands: list[Operand]) -> Affine:
        """The operands side by side, along the channels or along a spatial axis."""
        inners, by_channel = joined_layout(operands, linear.axis)
        output, axes = node.outputs[0], inners[0].geometry.axes
        pixels = affine_form(inners[0].terms, None, output).pixels
        how = self._reading(output, axes, pixels)
        if not by_channel:
            moves = concat_offsets(linear, [value for value, _ in operands])
            biased = any(form.bias is not None and np.any(form.bias) for form in inners)
            fills = [  # zeros go without saying, but not beside a bias
                edge_fill(fill.numbers, axes, linear.axis - 2, fill.rows, fill.at_start)
                for fill in linear.fills
                if biased or np.any(fill.numbers)
            ]
            return self._noted(node, *concat_pixels(inners, moves, how, fills))
        if linear.fills:
            rows = sum(fill.rows for fill in linear.fills)
            raise Decline("CONSTANT", f"{rows} constant channels are put beside data")
        return self._noted(node, *concat_channels(inners, pixels, self.profile))

    def _noted(self, node: ir.Node, form: Affine, refusal: Decline | None) -> Affine:
        if refusal is not None:
            self.refusals[node] = refusal
        return form

    @within_range()
    def composed(self, node: ir.Node, linear: Applied, inner: Affine) -> Affine:
        """The operator after what computes its input."""
        pixels = form_of_operator(linear, node.outputs[0]).pixels
        outer, inner = align_layout(linear, inner, linear.source)
        layers = not outer.geometry.is_diagonal and any(
            not term.stencil.geometry.is_diagonal for term in inner.terms
        )
        if layers and not self.composing:
            raise Decline("OFF", "composing layers is switched off")
        how = self._reading(linear.source, outer.geometry.axes, pixels)
        return _applied(node, outer, inner, how)

    def _reading(self, value: ir.Value, axes: int, pixels: int) -> CompositionContext:
        tolerance = 16 * ROUNDOFF.get(value.dtype, 0.0) if value.dtype is not None else 0.0
        sizes = sizes_read(value, axes)
        return CompositionContext(sizes, pixels, self.profile, self.planes, tolerance)


def _applied(node: ir.Node, outer: Stencil, inner: Affine, how: CompositionContext) -> Affine:
    """outer(inner)."""
    form = compose_form(outer, inner, how)
    _require_no_growth(node, form, _reach(inner))
    return form


def _require_no_growth(node: ir.Node, form: Affine, before: float) -> None:
    """Decline if a term that is added to others may overflow though the sum need not do so.

    s (f(x) + g(z)) may be small where s f(x) is not, and (f(x) - g(z)) + h(x) where (f + h)(x) is
    not. Below the root of the type's largest number neither weights nor data are near it; where the
    weights are no larger than `before`, the terms are no larger than what there was.
    """
    dtype, after = node.outputs[0].dtype, _reach(form)
    if dtype in LARGEST and after > max(before * (1 + SLACK), LARGEST[dtype] ** 0.5):
        raise Decline(
            "OVERFLOW",
            f"the {len(form.live)} terms of a sum would be up to {after:.3g} times their data"
            f" before they are added, not {before:.3g}, and may overflow {dtype.name} where the sum"
            " does not",
        )


def _reach(*forms: Affine) -> float:
    """The most that any term can be on data of at most 1; 0 where no two terms are added."""
    stencils = [term.stencil for form in forms for term in form.live]
    if len({term.source for form in forms for term in form.live}) < 2:
        return 0.0
    rows = (np.abs(f.weight).reshape(f.geometry.outputs, -1) for f in stencils)
    return max(float(row.sum(1, dtype=np.float64).max()) for row in rows)


def pop_forms(values: Iterable[ir.Value], forms: dict[ir.Value, Affine]) -> list[Operand]:
    """Each value with its form, or as what is not looked into."""
    return [(v, forms.pop(v) if v in forms else leaf(v)) for v in values]
