"""Elementary stencils: a convolution, a scale, a shift, a choice of channels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from flatfold.passes import picks
from flatfold.passes.arithmetic import lifted
from flatfold.passes.geometry import Geometry, Ints
from flatfold.passes.kernels import Weight
from flatfold.passes.picks import Index
from flatfold.passes.stencil import Stencil, present, settled


def stencil(
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
    offset = None if bias is None else present(lifted(bias).astype(np.float64))
    return Stencil(shape, lifted(weight), offset)


def diagonal(scale: Weight, bias: Weight | None, axes: int) -> Stencil:
    """scale[c] * x[c] + bias[c]."""
    return stencil(scale.reshape(-1, 1, *(1,) * axes), bias, groups=len(scale))


def moved(channels: int, begin: Ints, end: Ints, strides: Ints | None = None) -> Stencil:
    """Identity with zero padding (positive) or cropping (negative), every `strides`-th pixel."""
    one = np.ones((channels, 1, *(1,) * len(begin)))
    return stencil(one, groups=channels, begin=begin, end=end, strides=strides)


def picked(index: Index, width: int, axes: int) -> Stencil:
    """Channels `index` of a source of `width` channels."""
    return settled(replace(moved(len(index), (0,) * axes, (0,) * axes), pick=index, width=width))


def unpicked(f: Stencil) -> Stencil:
    """f with one group and no pick: it reads every channel of its source."""
    if f.pick is None:
        return f
    weight, shape = picks.spread(f.weight, f.geometry, f.pick, f.width)
    return Stencil(shape, weight, f.bias, True)
