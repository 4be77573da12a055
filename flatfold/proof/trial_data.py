"""Input sizes at which a change is checked: small, but with every class of border in them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from flatfold.passes import Change
from flatfold.passes.decline import Decline
from flatfold.passes.reading.affine import Term
from flatfold.passes.reading.deferred import origin_of, root_value
from flatfold.proof.interpreter.operators import traits_of
from flatfold.proof.interpreter.pair import Pair
from flatfold.proof.network.inputs import limits_of, within_range

INTERIOR = 3

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
        traits_of(node).counts_pixels or ("auto_pad" in node.attributes and _auto(node))
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


MOST_ELEMENTS = 1 << 25  # of one value; a kernel of 31 x 31 on a thousand channels has a tenth
OPEN = 3  # pixels along an axis of which no size is known


@dataclass(frozen=True)
class Trial:
    """The nodes that compute a region, in order, and what they are fed."""

    nodes: tuple[ir.Node, ...]
    feeds: Mapping[ir.Value, Pair]


def trial(change: Change, extent: Extent, rng: np.random.Generator) -> Trial:
    """Random data at these sizes, within the range that the sources of the region have."""
    region = change.region
    feeds: dict[ir.Value, Pair] = {}
    ranged = any(traits_of(node).piecewise for node in region.nodes)
    for term in region.form.terms:
        shape = data_shape(term, extent[term.source], region.nodes)
        source = root_value(term.source)
        out = [size or 1 for size in term.stencil.geometry.output_sizes(extent[term.source])]
        drawn = base_shape(term.source, shape)
        if max(math.prod(drawn), term.stencil.geometry.outputs * math.prod(out)) > MOST_ELEMENTS:
            raise Decline("UNPROVED", "its padding makes it too large to check")
        x = rng.standard_normal(drawn)
        if ranged:
            x *= np.where(rng.random(x.shape) < 0.5, 1.0, _reach(region.nodes))
            x = within_range(source, x)
        feeds.setdefault(source, Pair(x, np.abs(x)))
    feeds |= _repeated(region.nodes, feeds)
    return Trial((*_makers(region.nodes, feeds), *reversed(region.nodes)), feeds)


def _makers(nodes: Iterable[ir.Node], feeds: Mapping[ir.Value, Pair]) -> list[ir.Node]:
    """What computes the other values that the region reads, straight from the feeds."""
    makers = [value.producer() for value in _read_besides(nodes, feeds)]
    return [n for n in makers if n is not None and n.inputs and n.inputs[0] in feeds]


def _read_besides(nodes: Iterable[ir.Node], feeds: Mapping[ir.Value, Pair]) -> set[ir.Value]:
    """Values that the region reads and neither makes nor is fed."""
    read = {value for node in nodes for value in node.inputs if value is not None}
    return read - {value for node in nodes for value in node.outputs} - set(feeds)


def _repeated(nodes: Iterable[ir.Node], feeds: Mapping[ir.Value, Pair]) -> dict[ir.Value, Pair]:
    """Constants that are repeated for every image, of one image."""
    found = {}
    for value in _read_besides(nodes, feeds):
        node = value.producer()
        tensor = None
        if node is not None and (node.op_type, node.domain) == ("Expand", "") and node.inputs[0]:
            tensor = ir.convenience.get_const_tensor(node.inputs[0])
        if tensor is not None and value.shape is not None:
            dims = [dim if isinstance(dim, int) else 1 for dim in value.shape.dims]
            array = np.broadcast_to(tensor.numpy().astype(np.float64), dims)
            found[value] = Pair(array, np.abs(array))
    return found


def base_shape(value: ir.Value, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of what a value that is yet to be made comes from, for one of this shape."""
    how = origin_of(value)
    if how is None:
        return shape
    if how.op_type in ("LayerNormalization", "LeakyRelu"):
        return base_shape(how.source, shape)
    if how.op_type == "Transpose":
        order = how.attributes["perm"].as_ints()
        return base_shape(how.source, tuple(shape[order.index(i)] for i in range(len(order))))
    dims = how.source.shape.dims if how.source.shape is not None else ()
    sizes = [dim if isinstance(dim, int) else OPEN for dim in dims[1:]]
    return base_shape(how.source, (shape[0], *sizes))


def data_shape(
    term: Term, sizes: tuple[int, ...], nodes: Iterable[ir.Node] = ()
) -> tuple[int, ...]:
    """[1, C, sizes] for a stencil with spatial axes; [1, 2, .., C] for a matrix.

    Where an operator counts what it reads, the sizes that the model has instead of 1 and 2.
    """
    shape, channels = term.source.shape, term.stencil.input_channels
    dims = shape.dims if shape is not None else (None, None)
    counted = any(node.op_type in ("Concat", "Reshape") for node in nodes)
    batch, *inner = (dim if counted and isinstance(dim, int) else 0 for dim in dims[:-1])
    if sizes or len(dims) == 2:
        return (batch or 1, channels, *sizes)
    return (batch or 1, *(size or 2 for size in inner), channels)


def _reach(nodes: Iterable[ir.Node]) -> float:
    """How far out data must go to get beyond every limit of a Clip among `nodes`."""
    ends = [abs(end) for node in nodes if node.op_type == "Clip" for end in limits_of(node)]
    return max([1.0, *(2 * end for end in ends if np.isfinite(end))])
