"""The form of one operator's output, from the forms of what it reads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import onnx_ir as ir

from flatfold.passes.cost.model import CostModel
from flatfold.passes.decline import Decline
from flatfold.passes.lifting.sums import (
    CompositionContext,
    compose_form,
    concat_channels,
    concat_pixels,
    select_form_channels,
    sum_forms,
)
from flatfold.passes.lowering.plan import form_cost
from flatfold.passes.lowering.rounding import LARGEST, ROUNDOFF, within_range
from flatfold.passes.reading.affine import Affine, Term
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
from flatfold.passes.reading.padded import over_larger_maps
from flatfold.passes.rewrite import Rewrite
from flatfold.passes.stencil.border import edge_fill, pad_border, uniform

Operand = tuple[ir.Value, Affine]

SLACK = 1e-6  # of a number: as much as rounding can add


MAX_JOINED = 2**24
"""The most channels times values of a Concat that is one form: each value has an index of all."""


@dataclass
class FormBuilder:
    """Makes the form of an operator's output from the forms of its inputs.

    What is merged, composed and simplified is what the `passes` in use contribute. `borders`: a
    bias may differ near the border. `refusals` holds why terms over one source stayed apart, by
    operator.
    """

    passes: Sequence[Rewrite]
    cost: CostModel
    borders: bool = False
    refusals: dict[ir.Node, Decline] = field(default_factory=dict)

    @within_range()
    def sum(
        self, node: ir.Node, signs: Sequence[int], operands: list[Operand], consume: bool = True
    ) -> Affine:
        """sum of sign * operand; `consume`: the operands are not needed afterwards."""
        values = [value for value, _ in operands]
        forms = _widened(same_layout(operands))
        require_equal_sizes(list(zip(values, forms, strict=True)))
        reach = _reach(*forms)  # before the weights are summed into each other
        context = self._sum_context(node, forms[0].geometry.axes)
        larger = over_larger_maps(forms)
        if larger is not None:
            moved, reason = sum_forms(list(zip(signs, larger, strict=True)), context, consume=False)
        form, refusal = sum_forms(list(zip(signs, forms, strict=True)), context, consume)
        if larger is not None and _is_cheaper(moved, form, self.cost):
            form, refusal = moved, reason
        _require_no_growth(node, form, reach)
        for rewrite in self.passes:
            form = rewrite.simplify_sum(form, node.outputs[0].dtype)
        return self._noted(node, form, refusal)

    @within_range()
    def inline(self, node: ir.Node, form: Affine, value: ir.Value, inner: Affine) -> Affine:
        """The form with `inner`, the form of `value`, in place of `value`."""
        kept = tuple(term for term in form.terms if term.source is not value)
        if len(kept) == len(form.terms):
            return form
        axes = form.geometry.axes
        inner = in_layout(inner, value, axes)
        parts = [(1, replace(form, terms=kept))]
        for term in form.terms:
            if term.source is value:
                context = replace(self._context(value, axes, form.pixels), at_any_cost=True)
                composed = compose_form(term.stencil, inner, context)
                _require_no_growth(node, composed, _reach(inner))
                parts.append((1, composed))
        return sum_forms(parts, self._sum_context(node, axes), consume=False)[0]

    @within_range()
    def join(self, node: ir.Node, linear: Joined, operands: list[Operand]) -> Affine:
        """The operands put end to end, along the channels or along a spatial axis."""
        forms, by_channel = joined_layout(operands, linear.axis)
        output, axes = node.outputs[0], forms[0].geometry.axes
        pixels = affine_form(forms[0].terms, None, output).pixels
        context = self._context(output, axes, pixels)
        if not by_channel:
            offsets = concat_offsets(linear, [value for value, _ in operands])
            biased = any(form.bias is not None and np.any(form.bias) for form in forms)
            fills = [  # zeros need no fill of their own, except where a bias meets them
                edge_fill(fill.numbers, axes, linear.axis - 2, fill.rows, fill.at_start)
                for fill in linear.fills
                if biased or np.any(fill.numbers)
            ]
            return self._noted(node, *concat_pixels(forms, offsets, context, fills))
        if linear.fills:
            rows = sum(fill.rows for fill in linear.fills)
            raise Decline("CONSTANT", f"{rows} constant channels are put next to data")
        if len(forms) * sum(form.geometry.outputs for form in forms) > MAX_JOINED:
            raise Decline("SHAPE", f"{len(forms)} values are joined, too many to look at as one")
        return self._noted(node, *concat_channels(forms, context))

    def _noted(self, node: ir.Node, form: Affine, refusal: Decline | None) -> Affine:
        if refusal is not None:
            self.refusals[node] = refusal
        return form

    @within_range()
    def compose(self, node: ir.Node, linear: Applied, inner: Affine) -> Affine:
        """The operator after the form of its input, by the pass that composes the two."""
        outer, inner = align_layout(linear, inner, linear.source)
        pixels = form_of_operator(replace(linear, stencil=outer), node.outputs[0]).pixels
        context = self._context(linear.source, outer.geometry.axes, pixels)
        context = replace(context, fill=linear.fill)
        for rewrite in self.passes:
            form = rewrite.compose(outer, inner, context)
            if form is not None:
                _require_no_growth(node, form, _reach(inner))
                return form
        raise Decline("OFF", "composing these two is switched off")

    def alone(self, node: ir.Node, linear: Applied) -> Affine:
        """The operator over its own input. Raises Decline where it fills in a number but 0."""
        form, shape = form_of_operator(linear, node.outputs[0]), linear.stencil.geometry
        if not linear.fill:
            return form
        if not self.borders:
            raise Decline("BORDER-BIAS", f"{linear.fill:g}, not 0, is around the map")
        nothing = uniform(None, shape.outputs, shape.axes)
        filled = np.full(shape.outputs, linear.fill)
        around = pad_border(nothing, shape.begin, shape.end, (), filled)
        return replace(form, border_bias=around)

    def _context(self, value: ir.Value, axes: int, pixels: int) -> CompositionContext:
        tolerance = 16 * ROUNDOFF.get(value.dtype, 0.0) if value.dtype is not None else 0.0
        sizes = sizes_read(value, axes)
        return CompositionContext(sizes, pixels, self.cost, self._join, self.borders, tolerance)

    def _sum_context(self, node: ir.Node, axes: int) -> CompositionContext:
        sizes = sizes_read(node.outputs[0], axes)
        return CompositionContext(sizes, 0, self.cost, self._join)

    def _join(
        self, terms: list[Term], pixels: int, cost: CostModel, consume: bool
    ) -> tuple[list[Term], Decline | None]:
        for rewrite in self.passes:
            joined = rewrite.join(terms, pixels, cost, consume)
            if joined is not None:
                return joined
        return terms, None


def _widened(forms: list[Affine]) -> list[Affine]:
    """Each computed form of one channel as many channels as the others have: a sum repeats it."""
    most = max(form.geometry.outputs for form in forms)
    repeated = np.zeros(most, np.int64)
    return [
        select_form_channels(form, repeated)
        if form.geometry.outputs == 1 < most and not _is_leaf(form)
        else form
        for form in forms
    ]


def _is_cheaper(one: Affine, two: Affine, cost: CostModel) -> bool:
    return form_cost(one, cost).seconds < form_cost(two, cost).seconds


def _is_leaf(form: Affine) -> bool:
    """Whether it is a value that is not looked into."""
    return form.bias is None and all(term.stencil.is_identity for term in form.terms)


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
    """Each value with its form, taken out of `forms`; a value without one stands for itself."""
    return [(v, forms.pop(v) if v in forms else leaf(v)) for v in values]
