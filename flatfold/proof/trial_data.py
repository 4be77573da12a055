"""Trial data: map sizes and random inputs on which both sides of a change run.

The sizes are the smallest with every kind of border: outputs that read the padding on either side,
and some that read none, for every residue modulo the stride.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from flatfold.passes import Change, Decline
from flatfold.passes.reading.affine import Term
from flatfold.passes.reading.deferred import origin_of, root_value
from flatfold.passes.reading.padded import Surrounded, surroundings
from flatfold.proof.interpreter.operators import traits_of
from flatfold.proof.interpreter.pair import Pair
from flatfold.proof.network.inputs import limits_of, within_range

INTERIOR = 3  # output positions on every axis that read no padding
MOST_ELEMENTS = 1 << 23  # of one value; a kernel of 31 x 31 on a thousand channels has a tenth
OPEN = 3  # pixels along an axis of unknown size

# Sizes of the maps of each source.
Extent = dict[ir.Value, tuple[int, ...]]


@dataclass(frozen=True)
class Trial:
    """The nodes that compute a region, in order, and the values of what they read.

    `shared` are nodes of the graph between the `feeds` and what both sides read: a Pad whose input
    and output are read.
    """

    nodes: tuple[ir.Node, ...]
    feeds: Mapping[ir.Value, Pair]
    shared: tuple[ir.Node, ...] = ()


def extents(change: Change) -> list[Extent]:
    """Sizes of the maps of every source: the smallest with every border, one for each residue.

    Where an axis of the model has a known size, only the residue of that size modulo the stride.
    Where constants depend on the size of the map, or the map is smaller than that, the model's own
    sizes. Raises Decline where no sizes are known that fit.
    """
    terms = change.region.form.terms
    model_sizes = _model_sizes(terms)
    keep = _counts_pixels(change) or any(
        node.op_type != "Pad" for one in _read_inside(change).values() for node in one.nodes
    )
    if model_sizes is not None and (keep or _is_small(terms)):
        return [model_sizes]
    stride = max((s for term in terms for s in term.stencil.geometry.strides), default=1)
    residues = (0,) if model_sizes is not None else tuple(sorted({0, stride - 1}))
    candidates = [_sizes_for(terms, residue, keep) for residue in residues]
    if None in candidates:
        candidates = [model_sizes]
    sizes = [extent for extent in candidates if extent is not None]
    if not sizes:
        raise Decline("UNPROVED", "no input size is known at which both sides can be compared")
    return sizes


def draw_trial(change: Change, extent: Extent, rng: np.random.Generator) -> Trial:
    """Random data of these sizes, within the range of values that the region's sources can have."""
    region = change.region
    feeds: dict[ir.Value, Pair] = {}
    shared: dict[ir.Node, None] = {}
    ranged = any(traits_of(node).piecewise for node in region.nodes)
    inside = _read_inside(change)
    for term in region.form.terms:
        shape = _data_shape(term, extent[term.source], region.nodes)
        source = root_value(term.source)
        out = [size or 1 for size in term.stencil.geometry.output_sizes(extent[term.source])]
        drawn = _root_shape(term.source, shape)
        if (smaller := inside.get(term.source)) is not None:
            source, shared = smaller.inner, {**shared, **dict.fromkeys(smaller.nodes)}
            drawn = (*drawn[:2], *_inner_sizes(smaller, drawn[2:]))
        if max(math.prod(drawn), term.stencil.geometry.outputs * math.prod(out)) > MOST_ELEMENTS:
            raise Decline("UNPROVED", "its padding makes it too large to check")
        x = rng.standard_normal(drawn)
        if ranged:
            x *= np.where(rng.random(x.shape) < 0.5, 1.0, _scale_beyond_limits(region.nodes))
            x = within_range(source, x)
        feeds.setdefault(source, Pair(x, np.abs(x)))
    feeds |= _repeated_constants(region.nodes, feeds)
    producers = [node for node in _producers(region.nodes, feeds) if node not in shared]
    nodes = (*shared, *producers, *reversed(region.nodes))
    return Trial(nodes, feeds, tuple(shared))


def _read_inside(change: Change) -> dict[ir.Value, Surrounded]:
    """Sources that are larger maps of something else that the region reads, each with the smallest.

    Both are computed from that one: their numbers depend on each other.
    """
    sources = {term.source for term in change.region.form.terms}
    others = _other_reads(change.region.nodes, sources)
    found = {}
    for source in sources:
        inside = surroundings(source)
        read = [n for n, one in enumerate(inside) if one.inner in others or _beside(one, others)]
        if read:
            found[source] = inside[max(read)]
    return found


def _beside(one: Surrounded, others: Container[ir.Value]) -> bool:
    """Whether the region reads another, smaller map with the same one inside."""
    return any(node.op_type == "Pad" and node.outputs[0] in others for node, _ in one.inner.uses())


def _inner_sizes(smaller: Surrounded, sizes: Sequence[int]) -> list[int]:
    """The sizes of the map inside. Raises Decline where copies of it would not go around it."""
    inner = [
        size - begin - end
        for size, begin, end in zip(sizes, smaller.begin, smaller.end, strict=True)
    ]
    if any(n <= max(ends) for n, *ends in zip(inner, smaller.begin, smaller.end, strict=True)):
        raise Decline("UNPROVED", "no small size is known at which pixels are copied around it")
    return inner


def _model_sizes(terms: tuple[Term, ...]) -> Extent | None:
    """The model's own sizes; None where one is open."""
    sizes: Extent = {}
    for term in terms:
        known = tuple(size for size in term.sizes if size is not None)
        if len(known) != len(term.sizes):
            return None
        sizes[term.source] = known
    return sizes


def _counts_pixels(change: Change) -> bool:
    """Whether constants of the region may depend on the size of the map."""
    return any(traits_of(node).counts_pixels or _pads_by_size(node) for node in change.region.nodes)


def _pads_by_size(node: ir.Node) -> bool:
    mode = node.attributes.get("auto_pad")
    same = mode is not None and str(mode.value).startswith("SAME")
    return same or "output_shape" in node.attributes


def _is_small(terms: tuple[Term, ...]) -> bool:
    """Whether a map of the model is smaller than the size with every kind of border."""
    counts = _output_counts(terms)
    for term in terms:
        g = term.stencil.geometry
        for size, count, s, growth in zip(
            g.spread(term.sizes), counts, g.strides, g.growth, strict=True
        ):
            if size is not None and size <= (count - 1) * s - growth:
                return True
    return False


def _output_counts(terms: tuple[Term, ...]) -> tuple[int, ...]:
    """Output positions on each axis: those that read padding on either side, and INTERIOR more."""
    counts = []
    for axis in range(terms[0].stencil.geometry.axes):
        borders = []
        for term in terms:
            g = term.stencil.geometry
            ends = (max(g.begin[axis], 0), max(g.end[axis], 0))
            borders.append(sum(math.ceil(end / g.strides[axis]) for end in ends))
        counts.append(max(borders) + INTERIOR)
    return tuple(counts)


def _reachable_counts(terms: tuple[Term, ...]) -> tuple[int, ...]:
    """`_output_counts`, or the next larger ones that every transposed convolution can have."""
    counts = list(_output_counts(terms))
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


def _sizes_for(terms: tuple[Term, ...], residue: int, keep: bool) -> Extent | None:
    """Sizes at which all terms have the same output size; None if one source would need two sizes.

    Open axes get the `residue` modulo the stride, others keep their own residue or, with `keep`,
    their own size.
    """
    counts = _reachable_counts(terms)
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
        sizes = _around(term.source, sizes, g.strides)
        if extent.setdefault(term.source, tuple(sizes)) != tuple(sizes):
            return None
        if min(sizes, default=1) < 1:
            return None
    return extent


def _around(source: ir.Value, sizes: Sequence[int], strides: Sequence[int]) -> list[int]:
    """Sizes with the same residues at which pixels of the map inside can be copied around it."""
    largest = list(sizes)
    for one in surroundings(source):
        for axis, (begin, end) in enumerate(zip(one.begin, one.end, strict=True)):
            missing = begin + end + max(begin, end) + 1 - largest[axis]
            largest[axis] += max(-(-missing // strides[axis]), 0) * strides[axis]
    return largest


def _producers(nodes: Iterable[ir.Node], feeds: Mapping[ir.Value, Pair]) -> list[ir.Node]:
    """The nodes that compute other values that the region reads, directly from the feeds."""
    producers = [value.producer() for value in _other_reads(nodes, feeds)]
    return [n for n in producers if n is not None and n.inputs and n.inputs[0] in feeds]


def _other_reads(nodes: Iterable[ir.Node], feeds: Iterable[ir.Value]) -> set[ir.Value]:
    """Values that the region reads and that are neither its own nor in `feeds`."""
    read = {value for node in nodes for value in node.inputs if value is not None}
    return read - {value for node in nodes for value in node.outputs} - set(feeds)


def _repeated_constants(
    nodes: Iterable[ir.Node], feeds: Mapping[ir.Value, Pair]
) -> dict[ir.Value, Pair]:
    """Constants that the graph repeats for every image (Expand), for one image."""
    constants = {}
    for value in _other_reads(nodes, feeds):
        node = value.producer()
        tensor = None
        if node is not None and (node.op_type, node.domain) == ("Expand", "") and node.inputs[0]:
            tensor = ir.convenience.get_const_tensor(node.inputs[0])
        if tensor is not None and value.shape is not None:
            dims = [dim if isinstance(dim, int) else 1 for dim in value.shape.dims]
            array = np.broadcast_to(tensor.numpy().astype(np.float64), dims)
            constants[value] = Pair(array, np.abs(array))
    return constants


def _root_shape(value: ir.Value, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of the graph's value that a deferred value is computed from, if it has `shape`."""
    origin = origin_of(value)
    if origin is None:
        return shape
    if origin.op_type in ("LayerNormalization", "LeakyRelu"):
        return _root_shape(origin.source, shape)
    if origin.op_type == "Transpose":
        order = origin.attributes["perm"].as_ints()
        return _root_shape(origin.source, tuple(shape[order.index(i)] for i in range(len(order))))
    dims = origin.source.shape.dims if origin.source.shape is not None else ()
    sizes = [dim if isinstance(dim, int) else OPEN for dim in dims[1:]]
    own = dims[0] if dims and origin.op_type == "Reshape" else None  # which may divide the batch
    return _root_shape(origin.source, (own if isinstance(own, int) else shape[0], *sizes))


def _data_shape(
    term: Term, sizes: tuple[int, ...], nodes: Iterable[ir.Node] = ()
) -> tuple[int, ...]:
    """[1, C, *sizes] for a stencil with spatial axes; [1, 2, ..., C] for a matrix.

    With a Concat or Reshape among `nodes`, the model's own sizes in place of 1 and 2.
    """
    shape, channels = term.source.shape, term.stencil.input_channels
    dims = shape.dims if shape is not None else (None, None)
    counted = any(node.op_type in ("Concat", "Reshape") for node in nodes)
    batch, *inner = (dim if counted and isinstance(dim, int) else 0 for dim in dims[:-1])
    if sizes or len(dims) == 2:
        return (batch or 1, channels, *sizes)
    return (batch or 1, *(size or 2 for size in inner), channels)


def _scale_beyond_limits(nodes: Iterable[ir.Node]) -> float:
    """A factor for normal data, so that it exceeds the limits of every Clip among `nodes`."""
    ends = [abs(end) for node in nodes if node.op_type == "Clip" for end in limits_of(node)]
    return max([1.0, *(2 * end for end in ends if np.isfinite(end))])
