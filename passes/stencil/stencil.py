"""The affine stencil and its algebra; NumPy only, knows no ONNX.

    y[n, o, p] = b[o] + sum over i, k of  W[o, i, k] * x~[n, i, s * p - begin + d * k]

x~ is x, and 0 outside it. Groups make W block-diagonal: `weight` is [outputs, inputs / groups,
*kernel]. Any number of spatial axes; with none it is a matrix (Gemm). Convolution, BatchNorm in
inference, scales, identity, average pooling, zero padding, crops and shifts all are stencils, so

    f + g, add([f, g, ..])  parallel branches      g @ f  one after the other      d * f  scale

are all the arithmetic a pass needs. Arithmetic is float64 whatever the weights' dtype, and runs by
structure: a diagonal factor costs O(weights), a 1x1 factor is one matrix product.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from flatfold.passes.decline import Decline
from flatfold.passes.stencil import kernels
from flatfold.passes.stencil.channels import (
    NO_CHANNEL,
    ChannelIndex,
    all_channels,
    is_all_channels,
    permute_within_groups,
    select_weight_rows,
    to_dense,
)
from flatfold.passes.stencil.geometry import (
    Geometry,
    Ints,
    Sizes,
    border_fault,
    composed_geometry,
    reads_outside,
    summed_geometry,
    unknown_sizes,
)
from flatfold.passes.stencil.kernels import Array, Weight, lifted


@dataclass(frozen=True, eq=False)
class Stencil:
    """An affine operator; `weight` keeps the dtype it came in until arithmetic promotes it.

    `owns_weight`: the weight was computed for this stencil, so nobody else can be holding it.
    `channel_index`: input j is channel channel_index[j] of a source of `source_channels` channels;
    None reads the source as it is.
    """

    geometry: Geometry
    weight: Weight
    bias: Array | None = None
    owns_weight: bool = False
    channel_index: ChannelIndex | None = None
    source_channels: int = 0
    __array_ufunc__ = None  # d * f is ours also when d is an array

    def __post_init__(self) -> None:
        g = self.geometry
        expected = (g.outputs, g.inputs // g.groups, *g.kernel)
        if self.weight.shape != expected:
            raise ValueError(f"weight has shape {self.weight.shape}, expected {expected}")
        if self.bias is not None and self.bias.shape != (g.outputs,):
            raise ValueError(f"bias has shape {self.bias.shape}, expected {(g.outputs,)}")
        if self.channel_index is not None and self.channel_index.shape != (g.inputs,):
            raise ValueError(
                f"channel index has shape {self.channel_index.shape}, expected {(g.inputs,)}"
            )

    @property
    def input_channels(self) -> int:
        """Channels of what it is applied to."""
        return self.geometry.inputs if self.channel_index is None else self.source_channels

    @property
    def channels_read(self) -> ChannelIndex:
        """The channel that each input is."""
        return (
            all_channels(self.geometry.inputs) if self.channel_index is None else self.channel_index
        )

    @property
    def is_identity(self) -> bool:
        """Exactly x -> x, of the channels it picks."""
        ones = self.geometry.is_diagonal and bool(np.all(self.weight == 1))
        return ones and self.bias is None

    @property
    def is_zero(self) -> bool:
        """No weight but zero (the first row alone tells it of most)."""
        return not np.any(self.weight[:1]) and not np.any(self.weight)

    def __matmul__(self, inner: Stencil) -> Stencil:
        return compose(self, inner)

    def __add__(self, other: Stencil) -> Stencil:
        return add([self, other])

    def __sub__(self, other: Stencil) -> Stencil:
        return add([self, -1.0 * other])

    def __neg__(self) -> Stencil:
        return -1.0 * self

    def __rmul__(self, factor: float | Array) -> Stencil:
        """factor[o] * f(x)[o], or one factor for all channels."""
        column = np.broadcast_to(factor, (self.geometry.outputs,))
        bias = None if self.bias is None else self.bias * column
        weight = kernels.scale_outputs(column, self.weight)
        return replace(self, weight=weight, bias=bias, owns_weight=True)


def nonzero_bias(bias: Array | None) -> Array | None:
    """A bias of nothing but zeros is none: the border rule asks only for that."""
    return bias if bias is not None and np.any(bias) else None


def add_biases(one: Array | None, two: Array | None) -> Array | None:
    """Sum of two biases that may be missing."""
    if one is None or two is None:
        return two if one is None else one
    return nonzero_bias(one + two)


def add(parts: Sequence[Stencil], sizes: Sizes | None = None, *, consume: bool = False) -> Stencil:
    """f(x) + g(x) + .. = (f + g + ..)(x), for stencils over one input of spatial `sizes`.

    `consume`: the parts are not needed afterwards, so a fresh weight may be summed into. Raises
    Decline if strides or output sizes differ.
    """
    one, *rest = parts
    if any(
        not np.array_equal(part.channels_read, one.channels_read)
        for part in rest
        if part.channel_index is not one.channel_index
    ):
        raise ValueError("cannot add stencils that read different channels")
    shapes = [part.geometry for part in parts]
    shape = summed_geometry(shapes, sizes or unknown_sizes(shapes[0].axes))
    hosts = [part for part in parts if part.geometry == shape]
    host = max(hosts, key=lambda part: part.owns_weight, default=None)
    if host is None:
        total = kernels.zero_weight(shape)
    else:
        total = host.weight.astype(np.float64, copy=not (consume and host.owns_weight))
    bias: Array | None = None
    for part in parts:
        bias = add_biases(bias, part.bias)
        if part is not host:
            kernels.accumulate(total, shape, part.weight, part.geometry)
    return Stencil(shape, total, bias, True, one.channel_index, one.source_channels)


def compose(outer: Stencil, inner: Stencil, sizes: Sizes | None = None) -> Stencil:
    """outer(inner(x)) = (outer @ inner)(x), x of spatial `sizes`.

    Raises Decline where the border would be wrong: exact when `outer` reads nothing outside
    `inner`'s output, or when `inner`, evaluated there, gives the 0 that `outer` reads.
    """
    if outer.channel_index is not None:
        inner = select_outputs(inner, outer.channel_index)
    f, g = inner.geometry, outer.geometry
    require_exact(g, f, inner.bias is not None, sizes or unknown_sizes(g.axes))
    shape = composed_geometry(g, f)
    bias = outer.bias
    if inner.bias is not None:
        bias = add_biases(bias, kernels.apply_to_constant(outer.weight, g, inner.bias))
    owned = True
    if g.is_diagonal and np.all(outer.weight == 1):  # to the bit, also below the normal numbers
        weight, owned = inner.weight, inner.owns_weight
    elif g.is_diagonal:
        weight = kernels.scale_outputs(outer.weight.reshape(-1), inner.weight)
    elif f.is_depthwise:
        weight = kernels.after_depthwise(outer.weight, g, inner.weight, f, shape)
    else:
        weight = kernels.after_dense(outer.weight, g, inner.weight, f, shape)
    return simplify_channels(
        Stencil(shape, weight, bias, owned, inner.channel_index, inner.source_channels)
    )


def require_exact(outer: Geometry, inner: Geometry, biased: bool, sizes: Sizes) -> None:
    """Raise Decline unless outer @ inner is exact on the border too."""
    if outer.is_transposed:
        if not inner.is_pointwise:
            raise Decline(
                "UPSAMPLE",
                f"a transposed convolution of stride {outer.upsample} spreads out what a kernel of"
                f" {inner.kernel} with stride {inner.strides} gives",
            )
        if biased:
            raise Decline(
                "BORDER-BIAS",
                f"a bias in front of a transposed convolution of stride {outer.upsample} is not on"
                " every pixel",
            )
        return
    if not reads_outside(outer, inner, sizes):
        return
    if biased:
        pads = f"{outer.begin} at the start and {outer.end} at the end"
        raise Decline("BORDER-BIAS", f"a bias in front of zero padding, {pads}, is not on that")
    fault = border_fault(outer, inner, sizes)
    if fault:
        raise Decline("BORDER", fault)


def regroup(f: Stencil, groups: int) -> Stencil:
    """The same operator written with another number of groups.

    Fewer groups fill the missing blocks with zeros; more groups need those blocks to be zero.
    """
    shape = f.geometry
    target = replace(shape, groups=groups)
    if shape.groups % groups == 0:
        return replace(f, geometry=target, weight=kernels.coarsen(f.weight, shape, groups))
    if groups % shape.groups or shape.inputs % groups or shape.outputs % groups:
        raise ValueError(f"cannot regroup from {shape.groups} to {groups} groups")
    weight = kernels.refine(f.weight, shape, groups)
    if weight is None:
        raise ValueError(f"weights outside the {groups} diagonal blocks are not zero")
    return replace(f, geometry=target, weight=weight)


def select_outputs(f: Stencil, index: ChannelIndex) -> Stencil:
    """The outputs `index` of f, in that order; a channel of zeros where it is -1."""
    weight, shape, channel_index = select_weight_rows(f.weight, f.geometry, f.channels_read, index)
    bias = None if f.bias is None else nonzero_bias(np.where(index < 0, 0.0, f.bias[index]))
    return simplify_channels(Stencil(shape, weight, bias, True, channel_index, f.input_channels))


def simplify_channels(f: Stencil) -> Stencil:
    """f with as simple a pick as its structure allows, at no more work."""
    if f.channel_index is None:
        return f
    shape, live = f.geometry, f.channel_index != NO_CHANNEL
    if is_all_channels(f.channel_index, f.source_channels):
        return replace(f, channel_index=None, source_channels=0)
    if shape.groups == 1 and f.source_channels <= shape.inputs:
        weight, shape = to_dense(f.weight, shape, f.channel_index, f.source_channels)
        return Stencil(shape, weight, f.bias, True)
    if shape.groups == 1 and not np.all(live) and np.any(live):
        kept = replace(shape, inputs=int(live.sum()))
        return replace(
            f, geometry=kept, weight=f.weight[:, live], channel_index=f.channel_index[live]
        )
    weight_here = (
        permute_within_groups(f.weight, shape, f.channel_index)
        if f.source_channels == shape.inputs
        else None
    )
    if weight_here is not None:
        return Stencil(shape, weight_here, f.bias, True)
    return f


def convolution(
    weight: Weight,
    bias: Weight | None = None,
    *,
    groups: int = 1,
    strides: Ints | None = None,
    dilations: Ints | None = None,
    begin: Ints | None = None,
    end: Ints | None = None,
    upsample: Ints | None = None,
) -> Stencil:
    """A stencil from a convolution's weight [outputs, inputs / groups, *kernel] and attributes.

    `end` defaults to `begin`, everything else to one or none.
    """
    none, one = (0,) * (weight.ndim - 2), (1,) * (weight.ndim - 2)
    begin = begin or none
    shape = Geometry(
        outputs=weight.shape[0],
        inputs=weight.shape[1] * groups,
        groups=groups,
        kernel=weight.shape[2:],
        strides=strides or one,
        dilations=dilations or one,
        begin=begin,
        end=begin if end is None else end,
        upsample=upsample or one,
    )
    offset = None if bias is None else nonzero_bias(lifted(bias).astype(np.float64))
    return Stencil(shape, lifted(weight), offset)


def diagonal(scale: Weight, bias: Weight | None, axes: int) -> Stencil:
    """scale[c] * x[c] + bias[c]."""
    return convolution(scale.reshape(-1, 1, *(1,) * axes), bias, groups=len(scale))


def translation(channels: int, begin: Ints, end: Ints, strides: Ints | None = None) -> Stencil:
    """Identity with zero padding (positive) or cropping (negative), every `strides`-th pixel."""
    one = np.ones((channels, 1, *(1,) * len(begin)))
    return convolution(one, groups=channels, begin=begin, end=end, strides=strides)


def channel_selection(index: ChannelIndex, source_channels: int, axes: int) -> Stencil:
    """Channels `index` of a source of `source_channels` channels."""
    return simplify_channels(
        replace(
            translation(len(index), (0,) * axes, (0,) * axes),
            channel_index=index,
            source_channels=source_channels,
        )
    )


def read_all_channels(f: Stencil) -> Stencil:
    """f with one group and no pick: it reads every channel of its source."""
    if f.channel_index is None:
        return f
    weight, shape = to_dense(f.weight, f.geometry, f.channel_index, f.source_channels)
    return Stencil(shape, weight, f.bias, True)
