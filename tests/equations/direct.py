"""The definition of a stencil, written as slowly and plainly as possible: the tests' reference."""

from __future__ import annotations

from itertools import product

import numpy as np
import numpy.typing as npt

from flatfold.passes.stencil.stencil import Stencil

Array = npt.NDArray[np.float64]


def direct(f: Stencil, x: Array) -> Array:
    """y[n, o, p] = b[o] + sum W[o, i, k] x~[n, i, s p - begin + d k], by the letter."""
    g = f.geometry
    out = tuple(
        (n + b + e - (d * (k - 1) + 1)) // s + 1
        for n, b, e, d, k, s in zip(
            x.shape[2:], g.begin, g.end, g.dilations, g.kernel, g.strides, strict=True
        )
    )
    y = np.zeros((x.shape[0], g.outputs, *out))
    dense = dense_weight(f)
    for place in product(*map(range, out)):
        for tap in product(*map(range, g.kernel)):
            at = tuple(
                s * p - b + d * k
                for s, p, b, d, k in zip(g.strides, place, g.begin, g.dilations, tap, strict=True)
            )
            if all(0 <= i < n for i, n in zip(at, x.shape[2:], strict=True)):
                y[(..., *place)] += x[(..., *at)] @ dense[(..., *tap)].T
    return y if f.bias is None else y + f.bias.reshape(-1, *(1,) * g.axes)


def dense_weight(f: Stencil) -> Array:
    """W without groups: [outputs, inputs, *kernel]."""
    g = f.geometry
    dense = np.zeros((g.outputs, g.inputs, *g.kernel))
    rows, columns = g.outputs // g.groups, g.inputs // g.groups
    for block in range(g.groups):
        row, column = block * rows, block * columns
        dense[row : row + rows, column : column + columns] = f.weight[row : row + rows]
    return dense
