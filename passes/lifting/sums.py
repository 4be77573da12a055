"""The arithmetic of affine forms: composition with a stencil, sums, and concatenation."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from flatfold.passes.cost.model import Cost, CostModel
from flatfold.passes.decline import Decline
from flatfold.passes.lowering.plan import Part, form_cost, plan_sum, sources_cost, too_costly
from flatfold.passes.reading.affine import Affine, Term
from flatfold.passes.reading.layout import same_shape
from flatfold.passes.reading.meaning import Linear, Summed
from flatfold.passes.reading.node import producer_of
from flatfold.passes.stencil import kernels
from flatfold.passes.stencil.border import (
    BorderBias,
    add_borders,
    pad_border,
    scale_border,
    uniform,
)
from flatfold.passes.stencil.channels import NO_CHANNEL, ChannelIndex, all_channels
from flatfold.passes.stencil.geometry import Geometry, Ints, Sizes, composed_geometry
from flatfold.passes.stencil.kernels import Array
from flatfold.passes.stencil.stencil import (
    Stencil,
    add_biases,
    compose,
    nonzero_bias,
    require_exact,
    select_outputs,
    translation,
)

SPLIT_MARGIN = 0.15
"""What a layer behind a Concat must gain to become several that are added, where only the copy is
saved. In networks copies run at 5 to 50 GB/s, the same layer of nudenet at 0.97 to 1.10 of its time
where 0.89 to 0.97 are estimated, and an Add of maps of unknown size is no part of a layer.
"""

Join = Callable[[list[Term], int, CostModel, bool], tuple[list[Term], Decline | None]]


@dataclass(frozen=True)
class CompositionContext:
    """What a stencil is composed in: the sizes that it reads, and the pixels that it writes.

    `borders`: a bias may differ near the border, as long as it is uniform again at the end of the
    region, up to a relative `tolerance`. `at_any_cost`: compose even where two steps cost less.
    `join` is what merges terms over one source. `fill` is what the stencil reads around the map.
    """

    sizes: Sizes
    pixels: int
    cost: CostModel
    join: Join
    borders: bool = False
    tolerance: float = 0.0
    at_any_cost: bool = False
    fill: float = 0.0


def compose_form(
    outer: Stencil, inner: Affine, context: CompositionContext, margin: float = 0.0
) -> Affine:
    """outer(inner) as one form.

    Raises Decline where it is not exact, or costs more than the two steps by more than `margin`.
    """
    batched, pixels, cost = inner.batched, context.pixels, context.cost
    alone = [Part.of(outer, context.sizes)]
    own = plan_sum(alone, outer.bias is not None, pixels, cost, batched).cost
    before = form_cost(inner, cost) + own
    sources = sources_cost(inner, cost)
    if outer.channel_index is not None:
        inner = select_form_channels(inner, outer.channel_index)
        outer = replace(outer, channel_index=None, source_channels=0)
    bias, border, uniform_before = _offset(outer, inner, context)
    biased = uniform_before and inner.bias is not None
    for term in inner.terms:
        require_exact(outer.geometry, term.stencil.geometry, biased, term.sizes)
    # with a border bias the region decides as a whole
    free = context.at_any_cost or (context.borders and _moves(outer.geometry))
    if not inner.joined and not free:
        shapes = [_composed(outer, term) for term in inner.live]
        after = sources + plan_sum(shapes, bias is not None, pixels, cost, batched).cost
        if after.seconds > before.seconds * (1 + margin):
            raise too_costly(before, after, "composing would cost")
    terms = _behind(replace(outer, bias=None), inner.terms)
    joined = inner.joined and outer.geometry.groups > 1
    form = Affine(terms, bias, pixels, batched, joined, border)
    if inner.joined and not free:  # what is zero on many channels shrinks when it is composed
        after = form_cost(form, cost)
        if after.seconds > before.seconds:
            raise too_costly(before, after, "composing would cost")
        _require_more_than_a_copy(before, after)
    return form


def _require_more_than_a_copy(before: Cost, after: Cost) -> None:
    """Decline more nodes for the same multiplies where they do not surely pay."""
    ratio = after.seconds / before.seconds if before.seconds else math.inf
    more = after.nodes - before.nodes
    if more > 0 and after.macs >= before.macs and ratio > 1 - SPLIT_MARGIN:
        raise Decline(
            "COST", f"exact, but {ratio:.3f}x the time is too little for {more} more nodes"
        )


def _behind(outer: Stencil, terms: Sequence[Term]) -> tuple[Term, ...]:
    """`outer` after each of the terms."""
    return tuple(Term(t.source, compose(outer, t.stencil, t.sizes), t.sizes) for t in terms)


def _offset(
    outer: Stencil, inner: Affine, context: CompositionContext
) -> tuple[Array | None, BorderBias | None, bool]:
    """(bias, border bias, whether the inner bias was uniform) of outer(inner)."""
    g = outer.geometry
    filled = np.full(g.outputs, context.fill) if context.fill else None
    if filled is not None and not context.borders:
        raise Decline("BORDER-BIAS", f"{context.fill:g}, not 0, is around the map")
    keeps_border = context.borders and _moves(g) and (inner.bias is not None or context.fill)
    if inner.border_bias is None and not keeps_border:
        if inner.bias is None:
            return outer.bias, None, True
        image = kernels.apply_to_constant(outer.weight, g, inner.bias)
        return add_biases(outer.bias, image), None, True
    own = _with_border(inner, context.sizes)
    if not _moves(g):
        raise Decline(
            "BORDER-BIAS",
            f"the bias in front of a layer of kernel {g.kernel} is another {own.border}",
        )
    padded = pad_border(own, g.begin, g.end, context.sizes, filled)
    border = scale_border(padded, outer.weight.reshape(-1).astype(np.float64))
    if outer.bias is not None:
        border = add_borders(border, uniform(outer.bias, g.outputs, g.axes), ())
    bias = border.uniform_bias(context.tolerance)
    return (None, border, False) if bias is None else (nonzero_bias(bias), None, False)


def _moves(g: Geometry) -> bool:
    """One tap per channel, no stride: Pad, crop, scale."""
    return g.is_depthwise and g.taps == 1 and not g.is_transposed and max(g.strides, default=1) == 1


def _with_border(form: Affine, sizes: Sizes) -> BorderBias:
    border = uniform(form.bias, form.geometry.outputs, form.geometry.axes)
    return border if form.border_bias is None else add_borders(border, form.border_bias, sizes)


def _composed(outer: Stencil, term: Term) -> Part:
    """What composing will give, as far as it is known without arithmetic."""
    inner = term.stencil
    shape = composed_geometry(outer.geometry, inner.geometry)
    part = Part.of(inner, term.sizes)
    ones = Part.of(outer, ()).ones and part.ones
    absorbed = shape.groups == 1 and inner.source_channels <= shape.inputs
    return Part(
        shape, ones, None if absorbed else part.channel_index, term.sizes, inner.source_channels
    )


def select_form_channels(form: Affine, index: ChannelIndex) -> Affine:
    """The channels `index` of a form; a channel of zeros where it is -1."""
    terms = tuple(Term(t.source, select_outputs(t.stencil, index), t.sizes) for t in form.terms)
    bias = None if form.bias is None else nonzero_bias(np.where(index < 0, 0.0, form.bias[index]))
    if form.border_bias is not None:
        where = form.border_bias.border
        raise Decline("BORDER-BIAS", f"{len(index)} channels of a bias that is another {where}")
    return replace(form, terms=terms, bias=bias)


def sum_forms(
    parts: Sequence[tuple[int, Affine]], context: CompositionContext, consume: bool = True
) -> tuple[Affine, Decline | None]:
    """Sum of signed forms on maps of `context.sizes`; terms over one source are joined.

    Also returns the reason for which some terms over one source stayed apart, if there is one.
    """
    by_source: dict[ir.Value, list[Term]] = {}
    bias: Array | None = None
    border: BorderBias | None = None
    for sign, form in parts:
        part = form.bias if sign > 0 or form.bias is None else -form.bias
        bias = add_biases(bias, part)
        if form.border_bias is not None:
            own = scale_border(form.border_bias, sign)
            border = own if border is None else add_borders(border, own, context.sizes)
        for term in form.terms:
            signed = term if sign > 0 else Term(term.source, -term.stencil, term.sizes)
            by_source.setdefault(term.source, []).append(signed)
    inside = None if border is None else border.uniform_bias(context.tolerance)
    if inside is not None:
        bias, border = add_biases(bias, nonzero_bias(inside)), None
    last, joined = parts[-1][1], any(form.joined for _, form in parts)
    terms: list[Term] = []
    refusal: Decline | None = None
    for group in by_source.values():
        fewer, reason = context.join(group, last.pixels, context.cost, consume)
        terms += fewer
        refusal = refusal or reason
    return Affine(tuple(terms), bias, last.pixels, last.batched, joined, border), refusal


def concat_channels(
    forms: Sequence[Affine], context: CompositionContext
) -> tuple[Affine, Decline | None]:
    """Concat on the channels: the sum of the forms, each on its own channels and zero on others."""
    counts = [form.geometry.outputs for form in forms]
    parts, before = [], 0
    for form, count in zip(forms, counts, strict=True):
        index = np.full(sum(counts), NO_CHANNEL, np.int64)
        index[before : before + count] = all_channels(count)
        placed = select_form_channels(form, index)
        parts.append((1, replace(placed, pixels=context.pixels, joined=len(forms) > 1)))
        before += count
    return sum_forms(parts, replace(context, sizes=(), tolerance=0.0))


def concat_pixels(
    forms: Sequence[Affine],
    offsets: Sequence[tuple[Ints, Ints]],
    context: CompositionContext,
    fills: list[BorderBias],
) -> tuple[Affine, Decline | None]:
    """Concat along a spatial axis: the sum of the forms, each at its place on a map of zeros.

    `offsets`: (zeros before, zeros after) each form. `fills` are the constants at the ends;
    `context.sizes` are those of the whole map.
    """
    counts = [form.geometry.outputs for form in forms]
    if len(set(counts)) > 1:
        raise Decline("CHANNELS", f"what is put end to end has {counts} channels")
    first = forms[0].bias
    gap = max(float(np.max(np.abs(_or_zeros(f) - _or_zeros(forms[0])))) for f in forms)
    plain = gap == 0 and not fills and all(form.border_bias is None for form in forms)
    if not plain and not context.borders:
        largest = max((float(np.max(np.abs(fill.values))) for fill in fills), default=0.0)
        raise Decline(
            "BORDER-BIAS",
            f"the bias differs by up to {gap:.3g} between the {len(forms)} values that are put end"
            f" to end, with {len(fills)} constants of up to {largest:.3g}",
        )
    parts = []
    for form, (begin, end) in zip(forms, offsets, strict=True):
        terms = _behind(translation(form.geometry.outputs, begin, end), form.terms)
        border = None if plain else pad_border(_with_border(form, ()), begin, end, ())
        placed = replace(form, terms=terms, bias=None, pixels=context.pixels, border_bias=border)
        parts.append((1, placed))
    for fill in fills:
        parts.append((1, Affine((), None, context.pixels, border_bias=fill)))
    form, refusal = sum_forms(parts, context)
    return (replace(form, bias=first) if plain else form), refusal


def _or_zeros(form: Affine) -> Array:
    return kernels.zeros(form.geometry.outputs) if form.bias is None else form.bias


Terms = list[tuple[int, ir.Value]]


def flatten_sums(
    order: Sequence[ir.Node], linear: Callable[[ir.Node], Linear], stops: Container[ir.Value]
) -> dict[ir.Node, Terms]:
    """Terms of each outermost sum, with those of the sums of the same shape inside it.

    (a + b) - (c - d) has the terms +a, +b, -c, +d. `order` has every node before the nodes that it
    reads; sums are not entered through values in `stops`.
    """
    sums: dict[ir.Node, Terms] = {}
    inside: set[ir.Node] = set()
    for node in order:
        outer = linear(node)
        if not isinstance(outer, Summed) or node in inside:
            continue
        terms, stack = sums.setdefault(node, []), list(reversed(outer.operands))
        while stack:
            sign, value = stack.pop()
            if value in stops or not same_shape(value, node.outputs[0]):
                terms.append((sign, value))
                continue
            inner = linear(producer_of(value))
            if not isinstance(inner, Summed):
                terms.append((sign, value))
                continue
            inside.add(producer_of(value))
            stack += [(sign * own, operand) for own, operand in reversed(inner.operands)]
    return sums
