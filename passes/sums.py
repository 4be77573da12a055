"""Sums of forms, and the composition of a stencil with a sum: carried out where it pays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from flatfold.passes import arithmetic, cost, kernels, picks, planes
from flatfold.passes import geometry as geo
from flatfold.passes.affine import Affine, Term
from flatfold.passes.cost import Profile
from flatfold.passes.elementary import moved
from flatfold.passes.geometry import Decline, Geometry, Ints, Sizes
from flatfold.passes.kernels import Array
from flatfold.passes.partition import merge
from flatfold.passes.planes import Plane
from flatfold.passes.stencil import Stencil, compose, plus, present, require_exact, rows
from flatfold.passes.writing import Part, cost_of, of_parts, of_sources, too_dear


@dataclass(frozen=True)
class Reading:
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


def apply(outer: Stencil, inner: Affine, how: Reading) -> Affine:
    """outer(inner) with the composition carried out.

    Raises Decline where it is not exact or costs more than the two steps it replaces.
    """
    batched, pixels, profile = inner.batched, how.pixels, how.profile
    own = of_parts([Part.of(outer, how.sizes)], outer.bias is not None, pixels, profile, batched)
    before = cost_of(inner, profile) + own
    sources = of_sources(inner, profile)
    if outer.pick is not None:
        inner = chosen(inner, outer.pick)
        outer = replace(outer, pick=None, width=0)
    bias, plane, even = _offset(outer, inner, how)
    for term in inner.terms:
        require_exact(
            outer.geometry, term.stencil.geometry, even and inner.bias is not None, term.sizes
        )
    free = how.dear or (how.planes and _moves(outer.geometry))  # the whole region decides
    if not inner.joined and not free:  # what is zero on many channels shrinks when it is composed
        shapes = [_composed(outer, t) for t in inner.live]
        after = sources + of_parts(shapes, bias is not None, pixels, profile, batched)
        margin = cost.MARGIN if _is_norm(inner) else 0.0
        if after.seconds > before.seconds * (1 + margin):
            raise too_dear(before, after, "composing would cost")
    terms = _behind(replace(outer, bias=None), inner.terms)
    joined = inner.joined and outer.geometry.groups > 1
    form = Affine(terms, bias, pixels, batched, joined, plane)
    if inner.joined and not free:
        after = cost_of(form, profile)
        if after.seconds > before.seconds:
            raise too_dear(before, after, "composing would cost")
    return form


def _is_norm(form: Affine) -> bool:
    """A scale and a shift per channel, over one value: what a norm was read as."""
    scaled = len(form.live) == 1 and form.live[0].stencil.geometry.is_diagonal
    return scaled and form.bias is not None and not form.live[0].stencil.is_identity


def _behind(outer: Stencil, terms: Sequence[Term]) -> tuple[Term, ...]:
    """`outer` after each of the terms."""
    return tuple(Term(t.source, compose(outer, t.stencil, t.sizes), t.sizes) for t in terms)


def _offset(outer: Stencil, inner: Affine, how: Reading) -> tuple[Array | None, Plane | None, bool]:
    """(bias, plane, whether the inner bias was even) of outer(inner)."""
    g = outer.geometry
    if inner.plane is None and not (how.planes and _moves(g) and inner.bias is not None):
        if inner.bias is None:
            return outer.bias, None, True
        image = kernels.apply_to_constant(outer.weight, g, inner.bias)
        return plus(outer.bias, image), None, True
    own = _plane_of(inner, how.sizes)
    if not _moves(g):
        raise Decline(
            "BORDER-BIAS",
            f"the bias in front of a layer of kernel {g.kernel} is another {own.border}",
        )
    moved_ = planes.moved(own, g.begin, g.end, how.sizes)
    plane = planes.scaled(moved_, outer.weight.reshape(-1).astype(np.float64))
    if outer.bias is not None:
        plane = planes.plus(plane, planes.even(outer.bias, g.outputs, g.axes), ())
    bias = plane.bias(how.tolerance)
    return (None, plane, False) if bias is None else (present(bias), None, False)


def _moves(g: Geometry) -> bool:
    """One tap per channel, no stride: Pad, crop, scale."""
    return g.is_depthwise and g.taps == 1 and not g.is_transposed and max(g.strides, default=1) == 1


def _plane_of(form: Affine, sizes: Sizes) -> Plane:
    plane = planes.even(form.bias, form.geometry.outputs, form.geometry.axes)
    return plane if form.plane is None else planes.plus(plane, form.plane, sizes)


def _composed(outer: Stencil, term: Term) -> Part:
    """What composing will give, as far as it is known without arithmetic."""
    inner = term.stencil
    shape = geo.compose(outer.geometry, inner.geometry)
    part = Part.of(inner, term.sizes)
    ones = Part.of(outer, ()).ones and part.ones
    absorbed = shape.groups == 1 and inner.width <= shape.inputs
    return Part(shape, ones, None if absorbed else part.pick, term.sizes, inner.width)


def chosen(form: Affine, index: picks.Index) -> Affine:
    """The channels `index` of a form; a channel of zeros where it is -1."""
    terms = tuple(Term(t.source, rows(t.stencil, index), t.sizes) for t in form.terms)
    bias = None if form.bias is None else present(np.where(index < 0, 0.0, form.bias[index]))
    if form.plane is not None:
        raise Decline(
            "BORDER-BIAS", f"{len(index)} channels of a bias that is another {form.plane.border}"
        )
    return replace(form, terms=terms, bias=bias)


def total(
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
    plane: Plane | None = None
    for sign, form in parts:
        part = form.bias if sign > 0 or form.bias is None else -form.bias
        bias = plus(bias, part)
        if form.plane is not None:
            own = planes.scaled(form.plane, sign)
            plane = own if plane is None else planes.plus(plane, own, sizes)
        for term in form.terms:
            signed = term if sign > 0 else Term(term.source, -term.stencil, term.sizes)
            grouped.setdefault(term.source, []).append(signed)
    evened = None if plane is None else plane.bias(tolerance)
    if evened is not None:
        bias, plane = plus(bias, present(evened)), None
    last, joined = parts[-1][1], any(form.joined for _, form in parts)
    terms: list[Term] = []
    refusal: Decline | None = None
    for group in grouped.values():
        merged, why = merge(group, last.pixels, profile, consume)
        terms += merged
        refusal = refusal or why
    return Affine(tuple(terms), bias, last.pixels, last.batched, joined, plane), refusal


def side_by_side(
    forms: Sequence[Affine], pixels: int, profile: Profile
) -> tuple[Affine, Decline | None]:
    """Concat on the channels: the sum of the forms, each on its own channels and zero on others."""
    counts = [form.geometry.outputs for form in forms]
    parts, before = [], 0
    for form, count in zip(forms, counts, strict=True):
        index = np.full(sum(counts), picks.NOTHING, np.int64)
        index[before : before + count] = picks.every(count)
        parts.append((1, replace(chosen(form, index), pixels=pixels, joined=len(forms) > 1)))
        before += count
    return total(parts, profile)


def end_to_end(
    forms: Sequence[Affine], moves: Sequence[tuple[Ints, Ints]], how: Reading, fills: list[Plane]
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
        terms = _behind(moved(form.geometry.outputs, begin, end), form.terms)
        plane = None if plain else planes.moved(_plane_of(form, ()), begin, end, ())
        parts.append((1, replace(form, terms=terms, bias=None, pixels=how.pixels, plane=plane)))
    for fill in fills:
        parts.append((1, Affine((), None, how.pixels, plane=fill)))
    form, refusal = total(parts, how.profile, how.sizes, how.tolerance)
    return (replace(form, bias=first) if plain else form), refusal


def _or_zeros(form: Affine) -> Array:
    return arithmetic.zeros(form.geometry.outputs) if form.bias is None else form.bias
