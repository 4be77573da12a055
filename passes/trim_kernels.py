"""Cut kernels to the taps that are used, split sparse ones, and pad them to a fast width."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from flatfold.passes.cost.model import CostModel
from flatfold.passes.lowering.plan import Part, form_cost, plan_term
from flatfold.passes.reading.affine import Affine, Term
from flatfold.passes.rewrite import Region, Rewrite
from flatfold.passes.stencil.channels import NO_CHANNEL, ChannelIndex
from flatfold.passes.stencil.geometry import Sizes
from flatfold.passes.stencil.kernels import Weight
from flatfold.passes.stencil.stencil import Stencil
from flatfold.passes.stencil.taps import as_channel_selection, trim, widen, widened


class TrimKernels(Rewrite):
    """W with rims of zeros = the inner W, with as much less padding.

    *Given* a convolution with many weights of zero: rims, gaps, a plus, channels that use fewer
    taps than others, outputs that read one channel only (pruned or embedded kernels, choices of
    channels written as matrices). *Result* smaller ones, summed or side by side.

    *Given* a depthwise kernel of a width that the target is slow on. *Result* a wider one, with
    zeros behind its last column.

    *Declines when* the pieces cost more than the whole; where the padding is narrower than a rim,
    the rest of the rim stays.
    """

    name = "trim-kernels"

    def claims(self, region: Region) -> bool:
        return region.resized and len(region.nodes) == 1

    def resize(self, form: Affine, cost: CostModel) -> Affine:
        return split_sparse(best_size(form, cost), cost)


def best_size(form: Affine, cost: CostModel) -> Affine:
    """The form with each kernel at its fastest size: without zero rims, or wider by zeros.

    Also without channels that no output reads. The same object if nothing changes.
    """
    terms = tuple(_best_term(term, form.pixels, cost) for term in form.terms)
    same = all(new is old for new, old in zip(terms, form.terms, strict=True))
    return form if same else replace(form, terms=terms)


def _best_term(term: Term, out: int, cost: CostModel) -> Term:
    inner = trim(term.stencil)
    thin = as_channel_selection(inner)
    if thin is not inner:
        costs = [plan_term(Part.of(f, term.sizes), False, out, cost).cost for f in (thin, inner)]
        inner = thin if costs[0].seconds < costs[1].seconds else inner
    best = _widened(inner, term.sizes, out, cost)
    same = best is term.stencil or best.geometry == term.stencil.geometry
    return term if same else replace(term, stencil=best)


def _widened(f: Stencil, sizes: Sizes, out: int, cost: CostModel) -> Stencil:
    """A depthwise kernel with columns of zeros behind its last, if that width is so much faster."""
    shape = f.geometry
    if not shape.is_depthwise or shape.taps == 1 or shape.is_transposed:
        return f
    if min((*shape.begin, *shape.end)) < 0 or max(shape.dilations) > 1:
        return f
    part, width = Part.of(f, sizes), shape.kernel[-1]

    def seconds(other: int) -> float:
        changed = replace(part, shape=widened(shape, other))
        return plan_term(changed, False, out, cost).cost.seconds

    best = min((width, *(n for n, _ in cost.profile.depthwise if n > width)), key=seconds)
    return f if best == width else widen(f, best)


Mask = npt.NDArray[np.bool_]
Box = tuple[slice, ...]

LEAST = 5  # taps along an axis, below which a kernel is not split


def split_sparse(form: Affine, cost: CostModel) -> Affine:
    """The form with sparse kernels split where that is cheaper; the same object if nowhere.

    The inverse of merging: strips for a plus, runs for a kernel with gaps (pruned groups of
    Shift-ConvNets), small kernels for the channels that use few taps.
    """
    for term in form.terms:
        shape = term.stencil.geometry
        if max(shape.kernel, default=0) < LEAST or shape.is_transposed:
            continue
        parts = _in_pieces(term, form.pixels, cost)
        if parts:
            return split_sparse(_with(form, term, parts), cost)
        apart = _by_channels(term)
        split = replace(_with(form, term, apart), joined=True) if apart else form
        if apart and form_cost(split, cost).seconds < form_cost(form, cost).seconds:
            return split
    return form


def _with(form: Affine, term: Term, parts: list[Stencil]) -> Affine:
    index = next(i for i, t in enumerate(form.terms) if t is term)
    new = [replace(term, stencil=part) for part in parts]
    return replace(form, terms=(*form.terms[:index], *new, *form.terms[index + 1 :]))


def _in_pieces(term: Term, out: int, cost: CostModel) -> list[Stencil]:
    """The cheapest sum of smaller kernels; none if the whole is cheapest."""
    f = term.stencil
    if np.all(_used(f.weight[:1])):
        return []  # the first output uses every tap, as most do
    best: list[Stencil] = []
    least = plan_term(Part.of(f, term.sizes), False, out, cost).cost.seconds
    added = cost.elementwise(f.geometry.outputs, out, reads=2).seconds
    for boxes in _divisions(_used(f.weight)):
        parts = _cut(f, boxes)
        total = added * (len(parts) - 1)
        total += sum(
            plan_term(Part.of(p, term.sizes), False, out, cost).cost.seconds for p in parts
        )
        if total < least:
            best, least = parts, total
    return best


def _used(weight: Weight) -> Mask:
    """Which taps any channel uses."""
    used: Mask = np.any(weight != 0, axis=(0, 1))
    return used


def _divisions(used: Mask) -> Iterator[list[Box]]:
    """Ways to cover the used taps by boxes: runs along an axis, and the two strips of a plus."""
    everything = [slice(None)] * used.ndim
    for axis in range(used.ndim):
        others = tuple(a for a in range(used.ndim) if a != axis)
        runs = _runs(used.any(axis=others))
        if len(runs) > 1:
            yield [(*everything[:axis], run, *everything[axis + 1 :]) for run in runs]
    if used.ndim == 2:
        yield from _strips(used)
        for first, second in _strips(used.T):
            yield [first[::-1], second[::-1]]


def _runs(line: Mask | np.bool_) -> list[slice]:
    used = np.atleast_1d(line)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], used, [False]]).astype(np.int8)))
    return [slice(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def _strips(used: Mask) -> Iterator[list[Box]]:
    """All rows over the columns that the narrow rows use, and the wide rows over all columns."""
    width = used.shape[1]
    first = np.where(used.any(axis=1), used.argmax(axis=1), width)
    last = np.where(used.any(axis=1), width - used[:, ::-1].argmax(axis=1), 0)
    extent = np.maximum(last - first, 0)
    for widest in np.unique(extent)[:-1]:
        narrow = (extent <= widest) & (extent > 0)
        wide = np.flatnonzero(extent > widest)
        if narrow.any():
            columns = slice(int(first[narrow].min()), int(last[narrow].max()))
            yield [(slice(None), columns), (slice(int(wide[0]), int(wide[-1]) + 1), slice(None))]


def _cut(f: Stencil, boxes: list[Box]) -> list[Stencil]:
    """The kernel in boxes; a tap in several is left to the first."""
    shape, left = f.geometry, f.weight.copy()
    parts = []
    for box in boxes:
        ranges = [s.indices(k)[:2] for s, k in zip(box, shape.kernel, strict=True)]
        index: Box = (slice(None), slice(None), *box)
        weight = left[index].copy()
        left[index] = 0
        steps = list(zip(ranges, shape.kernel, shape.dilations, strict=True))
        geometry = replace(
            shape,
            kernel=weight.shape[2:],
            begin=tuple(b - d * r[0] for b, (r, _, d) in zip(shape.begin, steps, strict=True)),
            end=tuple(e - d * (k - r[1]) for e, (r, k, d) in zip(shape.end, steps, strict=True)),
        )
        parts.append(trim(replace(f, geometry=geometry, weight=weight)))
    return parts


def _by_channels(term: Term) -> list[Stencil]:
    """A depthwise kernel as two, one of them for channels that use few taps; none if all do."""
    f = term.stencil
    if not f.geometry.is_depthwise:
        return []
    reach = _reach(f.weight)
    sizes = reach.prod(axis=1)
    if sizes.max() == sizes.min():
        return []
    order = np.unique(sizes)
    splits = order[:-1] if len(order) <= 8 else np.quantile(order[:-1], np.linspace(0, 1, 8))
    best = min(splits, key=lambda size: _taps(reach, sizes <= size))
    small = sizes <= best
    return [_only_channels(f, np.flatnonzero(rows).astype(np.int64)) for rows in (~small, small)]


def _reach(weight: Weight) -> npt.NDArray[np.int64]:
    """[channels, axes]: how far from the middle each channel's taps go, as a width."""
    reach = []
    for axis in range(weight.ndim - 2):
        others = tuple(a for a in range(1, weight.ndim) if a != axis + 2)
        used = np.any(weight != 0, axis=others)
        size = used.shape[1]
        away = np.abs(2 * np.arange(size) - size + 1) + 1
        reach.append(np.where(used, away, 0).max(axis=1))
    return np.stack(reach, axis=1)


def _taps(reach: npt.NDArray[np.int64], small: Mask) -> int:
    """Multiplications for each pixel, if each part has a kernel that covers all its channels."""
    return sum(int(rows.sum()) * int(np.prod(reach[rows].max(axis=0))) for rows in (small, ~small))


def _only_channels(f: Stencil, channels: ChannelIndex) -> Stencil:
    """f with zeros on the other channels, cut down to the taps of these."""
    weight = np.zeros_like(f.weight)
    weight[channels] = f.weight[channels]
    channel_index = np.full(len(f.weight), NO_CHANNEL, np.int64)
    channel_index[channels] = f.channels_read[channels]
    return trim(
        replace(
            f,
            weight=weight,
            bias=None,
            channel_index=channel_index,
            source_channels=f.input_channels,
        )
    )
