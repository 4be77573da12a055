"""Arithmetic on the weights of stencils: arrays in, arrays out, float64, at BLAS speed.

A weight is [outputs, inputs / groups, *kernel]; with m = fine / coarse, a weight of `fine` groups
is the block diagonal of one with `coarse` groups.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import product
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from flatfold.passes.stencil.geometry import Geometry, Ints

A = TypeVar("A")
Lift = Callable[[Any], Any]

_LIFT: ContextVar[Lift | None] = ContextVar("lift", default=None)


def lifted(array: A) -> A:
    """The array, as the kind of numbers that is computed with."""
    lift = _LIFT.get()
    return array if lift is None else lift(array)


def zeros(shape: int | tuple[int, ...]) -> Any:
    """Zeros to add to."""
    return lifted(np.zeros(shape))


@contextmanager
def lifting(lift: Lift) -> Iterator[None]:
    """Compute with `lift(array)` in place of each array, within."""
    token = _LIFT.set(lift)
    try:
        yield
    finally:
        _LIFT.reset(token)


Array = npt.NDArray[np.float64]
Weight = npt.NDArray[np.floating]


def zero_weight(shape: Geometry) -> Array:
    weight: Array = zeros((shape.outputs, shape.inputs // shape.groups, *shape.kernel))
    return weight


def placeholder(shape: Ints) -> Array:
    """Zeros that take no memory, for where only the shape is looked at."""
    return np.broadcast_to(np.zeros(()), shape)


def accumulate(total: Array, shape: Geometry, weight: Weight, part: Geometry) -> None:
    """total += weight, each of its taps and blocks where the merged kernel `shape` has it."""
    index: list[Any] = [slice(None), slice(None)]
    for axis in range(shape.axes):
        step = shape.dilations[axis]
        start = (shape.begin[axis] - part.begin[axis]) // step
        stride = max(part.dilations[axis] // step, 1)
        index.append(slice(start, start + stride * (part.kernel[axis] - 1) + 1, stride))
    blocks = _diagonal_blocks(total[tuple(index)], shape.groups, part.groups)
    blocks += weight.reshape(shape.groups, part.groups // shape.groups, -1, *weight.shape[1:])


def _diagonal_blocks(view: Array, coarse: int, fine: int) -> Array:
    """Writable view [coarse, m, outputs / fine, inputs / fine, *kernel] of the diagonal blocks."""
    m = fine // coarse
    blocks = view.reshape(coarse, m, view.shape[0] // fine, m, -1, *view.shape[2:])
    diagonal: Array = np.einsum("gaoai...->gaoi...", blocks)
    return diagonal


def coarsen(weight: Weight, shape: Geometry, groups: int) -> Weight:
    """The same operator with fewer groups: zeros in the blocks that were missing."""
    if groups == shape.groups:
        return weight
    total: Array = zeros((shape.outputs, shape.inputs // groups, *shape.kernel))
    blocks = _diagonal_blocks(total, groups, shape.groups)
    blocks += weight.reshape(groups, shape.groups // groups, -1, *weight.shape[1:])
    return total


def refine(weight: Weight, shape: Geometry, groups: int) -> Weight | None:
    """The same operator with more groups, or None if a block that would go is not zero."""
    full = weight.astype(np.float64)
    blocks = _diagonal_blocks(full, shape.groups, groups)
    if np.count_nonzero(blocks) != np.count_nonzero(full):
        return None
    return blocks.reshape(shape.outputs, shape.inputs // groups, *shape.kernel)


def scale_outputs(factor: Weight, weight: Weight) -> Array:
    """factor[o] * W[o, i, k]."""
    column = factor.astype(np.float64, copy=False).reshape(-1, *(1,) * (weight.ndim - 1))
    scaled: Array = weight * column
    return scaled


def apply_to_constant(weight: Weight, shape: Geometry, constant: Array) -> Array:
    """What a constant per channel becomes behind the stencil, away from the border."""
    matrix = weight.reshape(shape.outputs, -1)
    if shape.taps > 1:
        matrix = weight.sum(axis=tuple(range(2, weight.ndim)), dtype=np.float64)
    blocks = matrix.reshape(shape.groups, shape.outputs // shape.groups, -1)
    image: Array = np.matmul(blocks, constant.reshape(shape.groups, -1, 1)).reshape(-1)
    return image


def after_depthwise(
    outer: Weight, g: Geometry, inner: Weight, f: Geometry, shape: Geometry
) -> Array:
    """W[o, i, s*a + b] += Wg[o, i, a] * Wf[i, b]: no matrix product is needed."""
    factor = inner.astype(np.float64).reshape(g.groups, 1, -1, *f.kernel)
    blocks = outer.reshape(g.groups, -1, *outer.shape[1:])
    if f.taps == 1:
        scaled: Array = (blocks * factor).reshape(shape.outputs, -1, *shape.kernel)
        return scaled
    total = zero_weight(shape).reshape(g.groups, -1, outer.shape[1], *shape.kernel)
    for tap in product(*map(range, g.kernel)):
        at: tuple[Any, ...] = (..., *tap)
        column = blocks[at].reshape(*total.shape[:3], *(1,) * shape.axes)
        total[_place(tap, g, f, shape)] += column * factor
    return total.reshape(shape.outputs, -1, *shape.kernel)


def after_dense(outer: Weight, g: Geometry, inner: Weight, f: Geometry, shape: Geometry) -> Array:
    """W[o, :, s*a + b] += sum over m of Wg[o, m, a] Wf[m, :, b]: one matrix product a tap."""
    groups = shape.groups
    first = coarsen(inner, f, groups).astype(np.float64, copy=False)
    second = coarsen(outer, g, groups).astype(np.float64, copy=False)
    middle, outputs, inputs = (n // groups for n in (f.outputs, shape.outputs, shape.inputs))
    right = first.reshape(groups, middle, -1)
    left = np.moveaxis(second.reshape(groups, outputs, middle, -1), 3, 1)
    if f.taps == 1:  # every tap in one product
        rows = (left.reshape(groups, -1, middle) @ right).reshape(groups, g.taps, outputs, inputs)
        return np.moveaxis(rows, 1, 3).reshape(shape.outputs, inputs, *shape.kernel)
    total: Array = zeros((groups, outputs, inputs, *shape.kernel))
    for number, tap in enumerate(product(*map(range, g.kernel))):
        part = (left[:, number] @ right).reshape(groups, outputs, inputs, *f.kernel)
        total[_place(tap, g, f, shape)] += part
    return total.reshape(shape.outputs, inputs, *shape.kernel)


def _place(tap: Ints, g: Geometry, f: Geometry, shape: Geometry) -> tuple[Any, ...]:
    """Where the inner kernel lands in the composed kernel for one tap of the outer one."""
    places: list[Any] = [...]
    for axis, index in enumerate(tap):
        start = f.strides[axis] * g.dilations[axis] * index // shape.dilations[axis]
        step = max(f.dilations[axis] // shape.dilations[axis], 1)
        places.append(slice(start, start + step * (f.kernel[axis] - 1) + 1, step))
    return tuple(places)


def transposed(weight: Weight, groups: int) -> Weight:
    """A transposed convolution's weight [inputs, outputs / groups, *kernel], or back again.

    Blocks are transposed and taps reversed, which is its own inverse.
    """
    inputs, outputs = weight.shape[0] // groups, weight.shape[1]
    blocks = weight.reshape(groups, inputs, outputs, *weight.shape[2:]).swapaxes(1, 2)
    flat = blocks.reshape(groups * outputs, inputs, *weight.shape[2:])
    flipped: Weight = np.flip(flat, axis=tuple(range(2, weight.ndim)))
    return flipped
