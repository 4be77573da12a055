"""Input sizes at which a change is checked: small, but with every class of border in them."""

from __future__ import annotations

import math

import onnx_ir as ir

from flatfold.passes import Change
from flatfold.passes.affine import Term
from flatfold.passes.geometry import Decline

INTERIOR = 3

# Operators whose constants may count pixels of the real input: they are run at its real size.
SIZED = ("Concat", "DeformConv", "GridSample", "Reshape", "Slice")

Extent = dict[ir.Value, tuple[int, ...]]


def extents(change: Change) -> list[Extent]:
    """Spatial sizes for every source: for each stride residue the smallest with every border.

    Where an axis of the model has a known size, only its residue; where an operator counts pixels,
    or the map is smaller than that extent, the real size itself.
    """
    terms = change.region.form.terms
    real = _real(terms)
    keep = _is_sized(change)
    if real is not None and (keep or _is_small(terms)):
        return [real]
    stride = max((s for term in terms for s in term.stencil.geometry.strides), default=1)
    residues = (0,) if real is not None else tuple(sorted({0, stride - 1}))
    found = [_consistent(terms, residue, keep) for residue in residues]
    if None in found:
        found = [real]
    sizes = [extent for extent in found if extent is not None]
    if not sizes:
        raise Decline("UNPROVED", "no input size is known at which both sides can be compared")
    return sizes


def _real(terms: tuple[Term, ...]) -> Extent | None:
    """The sizes that the model has, where all are known."""
    real: Extent = {}
    for term in terms:
        known = tuple(size for size in term.sizes if size is not None)
        if len(known) != len(term.sizes):
            return None
        real[term.source] = known
    return real


def _is_sized(change: Change) -> bool:
    return any(
        node.op_type in SIZED or ("auto_pad" in node.attributes and _auto(node))
        for node in change.region.nodes
    )


def _auto(node: ir.Node) -> bool:
    return str(node.attributes["auto_pad"].value).startswith("SAME")


def _is_small(terms: tuple[Term, ...]) -> bool:
    """Maps smaller than the extent that would hold every border class on its own."""
    counts = _outputs(terms)
    for term in terms:
        g = term.stencil.geometry
        for size, count, s, growth in zip(
            g.spread(term.sizes), counts, g.strides, g.growth, strict=True
        ):
            if size is not None and size <= (count - 1) * s - growth:
                return True
    return False


def _outputs(terms: tuple[Term, ...]) -> tuple[int, ...]:
    """Output positions per axis: those that see padding on either side, and some that do not."""
    counts = []
    for axis in range(terms[0].stencil.geometry.axes):
        rims = []
        for term in terms:
            g = term.stencil.geometry
            ends = (max(g.begin[axis], 0), max(g.end[axis], 0))
            rims.append(sum(math.ceil(end / g.strides[axis]) for end in ends))
        counts.append(max(rims) + INTERIOR)
    return tuple(counts)


def _reachable(terms: tuple[Term, ...]) -> tuple[int, ...]:
    """`_outputs`, or a little more: what transposed convolutions can put out is in steps."""
    counts = list(_outputs(terms))
    for axis, least in enumerate(counts):
        steps = [t.stencil.geometry for t in terms if t.stencil.geometry.upsample[axis] > 1]
        period = math.lcm(1, *(g.upsample[axis] for g in steps))
        fits = (
            n
            for n in range(least, least + period)
            if all((n - 2 - g.growth[axis]) % g.upsample[axis] == 0 for g in steps)
        )
        counts[axis] = next(fits, least)
    return tuple(counts)


def _consistent(terms: tuple[Term, ...], residue: int, keep: bool) -> Extent | None:
    """Sizes at which every term has the wanted output size; None if one source would need two.

    Open axes take the `residue` modulo the stride, the others their own; `keep` leaves them at
    their real size.
    """
    counts = _reachable(terms)
    extent: Extent = {}
    for term in terms:
        g = term.stencil.geometry
        sizes = []
        axes = zip(counts, g.strides, g.growth, g.upsample, term.sizes, strict=True)
        for n, s, growth, u, real in axes:
            if keep and real is not None:
                sizes.append(real)
                continue
            spread = ((real or 1) - 1) * u + 1
            extra = min(residue, s - 1) if real is None else (spread + growth) % s
            sizes.append(((n - 1) * s - growth + extra - 1) // u + 1)
        if extent.setdefault(term.source, tuple(sizes)) != tuple(sizes):
            return None
        if min(sizes, default=1) < 1:
            return None
    return extent
