"""Sums of forms, and the composition of a stencil with a sum: carried out where it pays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from flatfold.passes import geometry as geo
from flatfold.passes import kernels, picks
from flatfold.passes.affine import Affine, Term
from flatfold.passes.cost import Profile
from flatfold.passes.elementary import moved
from flatfold.passes.geometry import Decline, Ints, Sizes
from flatfold.passes.kernels import Array
from flatfold.passes.partition import merge
from flatfold.passes.stencil import Stencil, compose, plus, present, require_exact, rows
from flatfold.passes.writing import Part, cost_of, of_parts, of_sources, too_dear


def apply(outer: Stencil, inner: Affine, sizes: Sizes, pixels: int, profile: Profile) -> Affine:
    """outer(inner) with the composition carried out; `sizes` are those of what `outer` reads.

    Raises Decline where it is not exact or costs more than the two steps it replaces.
    """
    g, batched = outer.geometry, inner.batched
    own = of_parts([Part.of(outer, sizes)], outer.bias is not None, pixels, profile, batched)
    before = cost_of(inner, profile) + own
    sources = of_sources(inner, profile)
    if outer.pick is not None:
        inner = chosen(inner, outer.pick)
        outer = replace(outer, pick=None, width=0)
    for term in inner.terms:
        require_exact(g, term.stencil.geometry, inner.bias is not None, term.sizes)
    biased = outer.bias is not None or inner.bias is not None
    if not inner.joined:  # what is zero on many channels shrinks when it is composed
        shapes = [_composed(outer, t) for t in inner.live]
        after = sources + of_parts(shapes, biased, pixels, profile, batched)
        if after.seconds > before.seconds:
            raise too_dear(before, after, "composing would cost")
    bias = outer.bias
    if inner.bias is not None:
        bias = plus(bias, kernels.apply_to_constant(outer.weight, g, inner.bias))
    bare = replace(outer, bias=None)
    terms = [Term(t.source, compose(bare, t.stencil, t.sizes), t.sizes) for t in inner.terms]
    form = Affine(tuple(terms), bias, pixels, batched, inner.joined and g.groups > 1)
    if inner.joined:
        after = cost_of(form, profile)
        if after.seconds > before.seconds:
            raise too_dear(before, after, "composing would cost")
    return form


def _composed(outer: Stencil, term: Term) -> Part:
    """What composing will give, as far as it is known without arithmetic."""
    inner = term.stencil
    shape = geo.compose(outer.geometry, inner.geometry)
    part = Part.of(inner, term.sizes)
    ones = Part.of(outer, ()).ones and part.ones
    absorbed = shape.groups == 1 and inner.width <= shape.inputs
    return Part(shape, ones, None if absorbed else part.pick, term.sizes)


def chosen(form: Affine, index: picks.Index) -> Affine:
    """The channels `index` of a form; a channel of zeros where it is -1."""
    terms = tuple(Term(t.source, rows(t.stencil, index), t.sizes) for t in form.terms)
    bias = None if form.bias is None else present(np.where(index < 0, 0.0, form.bias[index]))
    return replace(form, terms=terms, bias=bias)


def total(parts: Iterable[tuple[int, Affine]], profile: Profile) -> tuple[Affine, Decline | None]:
    """Sum of signed forms of equal size: terms over one source are merged where that pays.

    Also returns the reason for which some terms over one source stayed apart, if there is one.
    """
    grouped: dict[ir.Value, list[Term]] = {}
    bias: Array | None = None
    pixels, batched, joined = 0, False, False
    for sign, form in parts:
        pixels, batched, joined = form.pixels, form.batched, joined or form.joined
        part = form.bias if sign > 0 or form.bias is None else -form.bias
        bias = plus(bias, part)
        for term in form.terms:
            signed = term if sign > 0 else Term(term.source, -term.stencil, term.sizes)
            grouped.setdefault(term.source, []).append(signed)
    terms: list[Term] = []
    refusal: Decline | None = None
    for group in grouped.values():
        merged, why = merge(group, pixels, profile)
        terms += merged
        refusal = refusal or why
    return Affine(tuple(terms), bias, pixels, batched, joined), refusal


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
    forms: Sequence[Affine], moves: Sequence[tuple[Ints, Ints]], pixels: int, profile: Profile
) -> tuple[Affine, Decline | None]:
    """Concat along a spatial axis: the sum of the forms, each moved to its place on zeros."""
    first = forms[0].bias
    for form in forms[1:]:
        if not np.array_equal(_or_zeros(form, form.bias), _or_zeros(form, first)):
            raise Decline("BORDER-BIAS", "what is put end to end has different biases")
    parts = []
    for form, (begin, end) in zip(forms, moves, strict=True):
        outer = moved(form.geometry.outputs, begin, end)
        for term in form.terms:
            require_exact(outer.geometry, term.stencil.geometry, False, term.sizes)
        terms = tuple(
            Term(t.source, compose(outer, t.stencil, t.sizes), t.sizes) for t in form.terms
        )
        parts.append((1, replace(form, terms=terms, bias=None, pixels=pixels)))
    form, refusal = total(parts, profile)
    return replace(form, bias=first), refusal


def _or_zeros(form: Affine, bias: Array | None) -> Array:
    return np.zeros(form.geometry.outputs) if bias is None else bias
