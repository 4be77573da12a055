"""Kernels of the size that is fastest: zeros that they can do without, and zeros that help."""

from __future__ import annotations

from dataclasses import replace

from flatfold.passes.affine import Affine, Term
from flatfold.passes.cost import Profile
from flatfold.passes.geometry import Sizes
from flatfold.passes.rims import sparse, trim, widen, wider
from flatfold.passes.stencil import Stencil
from flatfold.passes.writing import Part, of_part


def trimmed(form: Affine, profile: Profile) -> Affine:
    """The form without what is zero: rims of kernels, and channels that no output reads.

    Zeros are put there where that is faster. The same object if there is nothing of that kind.
    """
    terms = tuple(_trimmed(term, form.pixels, profile) for term in form.terms)
    same = all(new is old for new, old in zip(terms, form.terms, strict=True))
    return form if same else replace(form, terms=terms)


def _trimmed(term: Term, out: int, profile: Profile) -> Term:
    inner = trim(term.stencil)
    thin = sparse(inner)
    if thin is not inner:
        costs = [of_part(Part.of(f, term.sizes), False, out, profile) for f in (thin, inner)]
        inner = thin if costs[0].seconds < costs[1].seconds else inner
    found = _widened(inner, term.sizes, out, profile)
    same = found is term.stencil or found.geometry == term.stencil.geometry
    return term if same else replace(term, stencil=found)


def _widened(f: Stencil, sizes: Sizes, out: int, profile: Profile) -> Stencil:
    """A depthwise kernel with columns of zeros behind its last, if that width is so much faster."""
    shape = f.geometry
    if not shape.is_depthwise or shape.taps == 1 or shape.is_transposed:
        return f
    if min((*shape.begin, *shape.end)) < 0 or max(shape.dilations) > 1:
        return f
    part, width = Part.of(f, sizes), shape.kernel[-1]

    def seconds(other: int) -> float:
        changed = replace(part, shape=wider(shape, other))
        return of_part(changed, False, out, profile).seconds

    best = min((width, *(n for n, _ in profile.depthwise if n > width)), key=seconds)
    return f if best == width else widen(f, best)
