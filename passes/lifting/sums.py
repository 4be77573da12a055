"""Sums of forms, and the composition of a stencil with a sum: carried out where it pays."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from flatfold.passes.cost.model import MARGIN
from flatfold.passes.cost.profiles import Profile
from flatfold.passes.decline import Decline
from flatfold.passes.lowering.plan import Part, form_cost, parts_cost, sources_cost, too_costly
from flatfold.passes.merge_branches import join_terms
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


@dataclass(frozen=True)
class CompositionContext:
    """What a stencil reads and writes: sizes of the one, positions of the other.

    `planes`: a bias may be another near the border, if it is even again at the end, but for a
    relative `tolerance`. `dear`: compose even where the two steps are cheaper.
    """

    sizes: Sizes
    pixels: int
    profile: Profile
    planes: bool = False
    tolerance: float = 0.0
    dear: bool = False


def compose_form(outer: Stencil, inner: Affine, how: CompositionContext) -> Affine:
    """outer(inner) with the composition carried out.

    Raises Decline where it is not exact or costs more than the two steps it replaces.
    """
    batched, pixels, profile = inner.batched, how.pixels, how.profile
    own = parts_cost([Part.of(outer, how.sizes)], outer.bias is not None, pixels, profile, batched)
    before = form_cost(inner, profile) + own
    sources = sources_cost(inner, profile)
    if outer.pick is not None:
        inner = select_form_channels(inner, outer.pick)
        outer = replace(outer, pick=None, width=0)
    bias, plane, even = _offset(outer, inner, how)
    for term in inner.terms:
        require_exact(
            outer.geometry, term.stencil.geometry, even and inner.bias is not None, term.sizes
        )
    free = how.dear or (how.planes and _moves(outer.geometry))  # the whole region decides
    if not inner.joined and not free:  # what is zero on many channels shrinks when it is composed
        shapes = [_composed(outer, t) for t in inner.live]
        after = sources + parts_cost(shapes, bias is not None, pixels, profile, batched)
        margin = MARGIN if _is_norm(inner) else 0.0
        if after.seconds > before.seconds * (1 + margin):
            raise too_costly(before, after, "composing would cost")
    terms = _behind(replace(outer, bias=None), inner.terms)
    joined = inner.joined and outer.geometry.groups > 1
    form = Affine(terms, bias, pixels, batched, joined, plane)
    if inner.joined and not free:
        after = form_cost(form, profile)
        if after.seconds > before.seconds:
            raise too_costly(before, after, "composing would cost")
    return form


def _is_norm(form: Affine) -> bool:
    """A scale and a shift per channel, over one value: what a norm was read as."""
    scaled = len(form.live) == 1 and form.live[0].stencil.geometry.is_diagonal
    return scaled and form.bias is not None and not form.live[0].stencil.is_identity


def _behind(outer: Stencil, terms: Sequence[Term]) -> tuple[Term, ...]:
    """`outer` after each of the terms."""
    return tuple(Term(t.source, compose(outer, t.stencil, t.sizes), t.sizes) for t in terms)


def _offset(
    outer: Stencil, inner: Affine, how: CompositionContext
) -> tuple[Array | None, BorderBias | None, bool]:
    """(bias, plane, whether the inner bias was even) of outer(inner)."""
    g = outer.geometry
    if inner.plane is None and not (how.planes and _moves(g) and inner.bias is not None):
        if inner.bias is None:
            return outer.bias, None, True
        image = kernels.apply_to_constant(outer.weight, g, inner.bias)
        return add_biases(outer.bias, image), None, True
    own = _plane_of(inner, how.sizes)
    if not _moves(g):
        raise Decline(
            "BORDER-BIAS",
            f"the bias in front of a layer of kernel {g.kernel} is another {own.border}",
        )
    moved_ = pad_border(own, g.begin, g.end, how.sizes)
    plane = scale_border(moved_, outer.weight.reshape(-1).astype(np.float64))
    if outer.bias is not None:
        plane = add_borders(plane, uniform(outer.bias, g.outputs, g.axes), ())
    bias = plane.bias(how.tolerance)
    return (None, plane, False) if bias is None else (nonzero_bias(bias), None, False)


def _moves(g: Geometry) -> bool:
    """One tap per channel, no stride: Pad, crop, scale."""
    return g.is_depthwise and g.taps == 1 and not g.is_transposed and max(g.strides, default=1) == 1


def _plane_of(form: Affine, sizes: Sizes) -> BorderBias:
    plane = uniform(form.bias, form.geometry.outputs, form.geometry.axes)
    return plane if form.plane is None else add_borders(plane, form.plane, sizes)


def _composed(outer: Stencil, term: Term) -> Part:
    """What composing will give, as far as it is known without arithmetic."""
    inner = term.stencil
    shape = composed_geometry(outer.geometry, inner.geometry)
    part = Part.of(inner, term.sizes)
    ones = Part.of(outer, ()).ones and part.ones
    absorbed = shape.groups == 1 and inner.width <= shape.inputs
    return Part(shape, ones, None if absorbed else part.pick, term.sizes, inner.width)


def select_form_channels(form: Affine, index: ChannelIndex) -> Affine:
    """The channels `index` of a form; a channel of zeros where it is -1."""
    terms = tuple(Term(t.source, select_outputs(t.stencil, index), t.sizes) for t in form.terms)
    bias = None if form.bias is None else nonzero_bias(np.where(index < 0, 0.0, form.bias[index]))
    if form.plane is not None:
        raise Decline(
            "BORDER-BIAS", f"{len(index)} channels of a bias that is another {form.plane.border}"
        )
    return replace(form, terms=terms, bias=bias)


def sum_forms(
    parts: Sequence[tuple[int, Affine]],
    profile: Profile,
    sizes: Sizes = (),
    tolerance: float = 0.0,
    consume: bool = True,
) -> tuple[Affine, Decline | None]:
    """Sum of signed forms of equal `sizes`: terms over one source are merged where that pays.

    Also returns the reason for which some terms over one source stayed apart, if there is one.
    """
    grouped: dict[ir.Value, list[Term]] = {}
    bias: Array | None = None
    plane: BorderBias | None = None
    for sign, form in parts:
        part = form.bias if sign > 0 or form.bias is None else -form.bias
        bias = add_biases(bias, part)
        if form.plane is not None:
            own = scale_border(form.plane, sign)
            plane = own if plane is None else add_borders(plane, own, sizes)
        for term in form.terms:
            signed = term if sign > 0 else Term(term.source, -term.stencil, term.sizes)
            grouped.setdefault(term.source, []).append(signed)
    evened = None if plane is None else plane.bias(tolerance)
    if evened is not None:
        bias, plane = add_biases(bias, nonzero_bias(evened)), None
    last, joined = parts[-1][1], any(form.joined for _, form in parts)
    terms: list[Term] = []
    refusal: Decline | None = None
    for group in grouped.values():
        merged, why = join_terms(group, last.pixels, profile, consume)
        terms += merged
        refusal = refusal or why
    return Affine(tuple(terms), bias, last.pixels, last.batched, joined, plane), refusal


def concat_channels(
    forms: Sequence[Affine], pixels: int, profile: Profile
) -> tuple[Affine, Decline | None]:
    """Concat on the channels: the sum of the forms, each on its own channels and zero on others."""
    counts = [form.geometry.outputs for form in forms]
    parts, before = [], 0
    for form, count in zip(forms, counts, strict=True):
        index = np.full(sum(counts), NO_CHANNEL, np.int64)
        index[before : before + count] = all_channels(count)
        parts.append(
            (1, replace(select_form_channels(form, index), pixels=pixels, joined=len(forms) > 1))
        )
        before += count
    return sum_forms(parts, profile)


def concat_pixels(
    forms: Sequence[Affine],
    moves: Sequence[tuple[Ints, Ints]],
    how: CompositionContext,
    fills: list[BorderBias],
) -> tuple[Affine, Decline | None]:
    """Concat along a spatial axis: the sum of the forms, each moved to its place on zeros.

    `fills` are the constants at the ends; `how.sizes` those of the whole.
    """
    counts = [form.geometry.outputs for form in forms]
    if len(set(counts)) > 1:
        raise Decline("CHANNELS", f"what is put end to end has {counts} channels")
    first = forms[0].bias
    apart = max(float(np.max(np.abs(_or_zeros(f) - _or_zeros(forms[0])))) for f in forms)
    plain = apart == 0 and not fills and all(form.plane is None for form in forms)
    if not plain and not how.planes:
        largest = max((float(np.max(np.abs(fill.values))) for fill in fills), default=0.0)
        raise Decline(
            "BORDER-BIAS",
            f"what is added differs by up to {apart:.3g} between the {len(forms)} values that are"
            f" put end to end, beside {len(fills)} constants of up to {largest:.3g}",
        )
    parts = []
    for form, (begin, end) in zip(forms, moves, strict=True):
        terms = _behind(translation(form.geometry.outputs, begin, end), form.terms)
        plane = None if plain else pad_border(_plane_of(form, ()), begin, end, ())
        parts.append((1, replace(form, terms=terms, bias=None, pixels=how.pixels, plane=plane)))
    for fill in fills:
        parts.append((1, Affine((), None, how.pixels, plane=fill)))
    form, refusal = sum_forms(parts, how.profile, how.sizes, how.tolerance)
    return (replace(form, bias=first) if plain else form), refusal


def _or_zeros(form: Affine) -> Array:
    return kernels.zeros(form.geometry.outputs) if form.bias is None else form.bias


Terms = list[tuple[int, ir.Value]]


def flatten_sums(
    order: Sequence[ir.Node], linear: Callable[[ir.Node], Linear], cuts: Container[ir.Value]
) -> dict[ir.Node, Terms]:
    """Terms of each outermost sum, those of sums of the same shape inside it among them.

    `order` has every node before the nodes it reads; values in `cuts` are not looked into.
    """
    sums: dict[ir.Node, Terms] = {}
    inside: set[ir.Node] = set()
    for node in order:
        found = linear(node)
        if not isinstance(found, Summed) or node in inside:
            continue
        terms, stack = sums.setdefault(node, []), list(reversed(found.operands))
        while stack:
            sign, value = stack.pop()
            if value in cuts or not same_shape(value, node.outputs[0]):
                terms.append((sign, value))
                continue
            inner = linear(producer_of(value))
            if not isinstance(inner, Summed):
                terms.append((sign, value))
                continue
            inside.add(producer_of(value))
            stack += [(sign * own, operand) for own, operand in reversed(inner.operands)]
    return sums
