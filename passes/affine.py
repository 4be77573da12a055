"""A value as an affine form of the values it is computed from:  bias + sum over t of f_t(x_t)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from flatfold.passes import cost, kernels
from flatfold.passes import geometry as geo
from flatfold.passes.cost import Cost, Profile
from flatfold.passes.geometry import Decline, Geometry, Sizes
from flatfold.passes.kernels import Array
from flatfold.passes.rims import trim
from flatfold.passes.stencil import Stencil, add, compose, plus, require_exact


@dataclass(frozen=True)
class Term:
    """stencil(source); the stencil has no bias."""

    source: ir.Value
    stencil: Stencil
    sizes: Sizes


@dataclass(frozen=True)
class Affine:
    """bias + sum of terms.

    `pixels`: output positions for one image, known or assumed. `batched`: matrices are applied
    along the last axis of a value of more than two, where no Gemm takes the bias along.
    """

    terms: tuple[Term, ...]
    bias: Array | None
    pixels: int
    batched: bool = False

    @property
    def geometry(self) -> Geometry:
        return self.terms[0].stencil.geometry

    @property
    def live(self) -> tuple[Term, ...]:
        """The terms that are written: those of zeros are not, which is exact for finite values."""
        kept = tuple(term for term in self.terms if not term.stencil.is_zero)
        return kept or self.terms[:1]

    def cost(self, profile: Profile) -> Cost:
        """Of the nodes that `lower` writes for this form."""
        shapes = [(term.stencil.geometry, term.stencil.is_identity) for term in self.live]
        return cost_of(shapes, self.bias is not None, self.pixels, profile, self.batched)


def trimmed(form: Affine) -> Affine:
    """The form without kernel rims that are zero; the same object if there are none."""
    terms = tuple(Term(t.source, trim(t.stencil), t.sizes) for t in form.terms)
    same = all(new.stencil is old.stencil for new, old in zip(terms, form.terms, strict=True))
    return form if same else Affine(terms, form.bias, form.pixels, form.batched)


def cost_of(
    shapes: Sequence[tuple[Geometry, bool]],
    biased: bool,
    pixels: int,
    profile: Profile,
    batched: bool = False,
) -> Cost:
    """Cost of a sum of (geometry, is identity) terms; a layer among them takes the bias."""
    total = Cost()
    if batched and biased and any(not shape.is_diagonal for shape, _ in shapes):
        total = cost.of_bias(shapes[0][0].outputs, pixels, profile)
        biased = False
    host = next((i for i, (shape, _) in enumerate(shapes) if not shape.is_diagonal), 0)
    for index, (shape, identity) in enumerate(shapes):
        total += cost.of_stencil(shape, biased and index == host, identity, pixels, profile)
    for _ in shapes[1:]:
        total += cost.of_elementwise(shapes[0][0].outputs, pixels, profile, reads=2)
    return total


def apply(outer: Stencil, inner: Affine, pixels: int, profile: Profile) -> Affine:
    """outer(inner) with the composition carried out.

    Raises Decline where it is not exact or costs more than the two steps it replaces.
    """
    g = outer.geometry
    for term in inner.terms:
        require_exact(g, term.stencil.geometry, inner.bias is not None, term.sizes)
    biased = outer.bias is not None or inner.bias is not None
    shapes = [(geo.compose(g, t.stencil.geometry), False) for t in inner.live]
    batched = inner.batched
    after = cost_of(shapes, biased, pixels, profile, batched)
    own = cost_of([(g, False)], outer.bias is not None, pixels, profile, batched)
    before = inner.cost(profile) + own
    if after.seconds > before.seconds:
        raise too_dear(before, after, "composing would cost")
    bias = outer.bias
    if inner.bias is not None:
        bias = plus(bias, kernels.apply_to_constant(outer.weight, g, inner.bias))
    bare = Stencil(g, outer.weight)
    terms = [Term(t.source, compose(bare, t.stencil, t.sizes), t.sizes) for t in inner.terms]
    return Affine(tuple(terms), bias, pixels, batched)


def too_dear(before: Cost, after: Cost, what: str) -> Decline:
    ratio = f"{after.seconds / before.seconds:.1f}x the time"
    if before.macs and after.macs > before.macs:
        ratio += f" and {after.macs / before.macs:.1f}x the multiplies"
    return Decline("COST", f"exact, but {what} {ratio}")


def total(parts: Iterable[tuple[int, Affine]], profile: Profile) -> tuple[Affine, Decline | None]:
    """Sum of signed forms of equal size: terms over one source are merged where that pays.

    Also returns the reason for which some terms over one source stayed apart, if there is one.
    """
    grouped: dict[ir.Value, list[Term]] = {}
    bias: Array | None = None
    pixels, batched = 0, False
    for sign, form in parts:
        pixels, batched = form.pixels, form.batched
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
    return Affine(tuple(terms), bias, pixels, batched), refusal


@dataclass
class _Bundle:
    """Terms that will become one stencil, planned by geometry before any arithmetic."""

    shape: Geometry
    members: list[Term]

    def cost(self, pixels: int, profile: Profile) -> Cost:
        identity = len(self.members) == 1 and self.members[0].stencil.is_identity
        return cost.of_stencil(self.shape, False, identity, pixels, profile)


def merge(terms: list[Term], pixels: int, profile: Profile) -> tuple[list[Term], Decline | None]:
    """The partition of a sum over one source that costs least, found by joining greedily."""
    if len(terms) == 1:
        return terms, None
    source, sizes = terms[0].source, terms[0].sizes
    alike: dict[Geometry, _Bundle] = {}
    for term in terms:
        shape = term.stencil.geometry
        alike.setdefault(shape, _Bundle(shape, [])).members.append(term)
    bundles, refusal = _join(list(alike.values()), sizes, pixels, profile)
    result = []
    for bundle in bundles:
        parts = [term.stencil for term in bundle.members]
        form = parts[0] if len(parts) == 1 else add(parts, sizes, consume=True)
        result.append(Term(source, form, sizes))
    return result, refusal


def _join(
    bundles: list[_Bundle], sizes: Sizes, pixels: int, profile: Profile
) -> tuple[list[_Bundle], Decline | None]:
    """Join the pair that gains most until none gains."""
    refusal: Decline | None = None
    while len(bundles) > 1:
        best: tuple[float, int, int, Geometry] | None = None
        for i, one in enumerate(bundles):
            for j in range(i + 1, len(bundles)):
                try:
                    shape, gain = _gain(one, bundles[j], sizes, pixels, profile)
                except Decline as reason:
                    refusal = reason
                    continue
                if best is None or gain > best[0]:
                    best = (gain, i, j, shape)
        if best is None:
            return bundles, refusal
        _, i, j, shape = best
        joined = _Bundle(shape, bundles[i].members + bundles[j].members)
        bundles = [joined if k == i else b for k, b in enumerate(bundles) if k != j]
    return bundles, refusal


def _gain(
    one: _Bundle, two: _Bundle, sizes: Sizes, pixels: int, profile: Profile
) -> tuple[Geometry, float]:
    shape = geo.union([one.shape, two.shape], sizes)
    joined = cost.of_stencil(shape, False, False, pixels, profile)
    apart = one.cost(pixels, profile) + two.cost(pixels, profile)
    apart += cost.of_elementwise(shape.outputs, pixels, profile, reads=2)
    if joined.seconds >= apart.seconds:
        raise too_dear(apart, joined, "one kernel for both branches would cost")
    return shape, apart.seconds - joined.seconds
