"""Data for both sides of a change: of a few pixels, and such as can occur."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from flatfold.passes import Change, virtual
from flatfold.passes.affine import Term
from flatfold.passes.geometry import Decline
from flatfold.proof.extent import Extent
from flatfold.proof.pair import Pair
from flatfold.proof.reachable import limits_of, within_range

MOST_ELEMENTS = 1 << 25  # of one value; a kernel of 31 x 31 on a thousand channels has a tenth
OPEN = 3  # pixels along an axis of which no size is known

# Operators that are linear on some inputs only: their region is run on inputs that can occur.
RANGED = ("Clip", "LeakyRelu", "PRelu", "Relu")


@dataclass(frozen=True)
class Trial:
    """The nodes that compute a region, in order, and what they are fed."""

    nodes: tuple[ir.Node, ...]
    feeds: Mapping[ir.Value, Pair]


def trial(change: Change, extent: Extent, rng: np.random.Generator) -> Trial:
    """Random data at these sizes, within the range that the sources of the region have."""
    region = change.region
    feeds: dict[ir.Value, Pair] = {}
    ranged = any(node.op_type in RANGED for node in region.nodes)
    for term in region.form.terms:
        shape = data_shape(term, extent[term.source], region.nodes)
        source = virtual.base(term.source)
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
    how = virtual.origin(value)
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
    shape, channels = term.source.shape, term.stencil.reads
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
