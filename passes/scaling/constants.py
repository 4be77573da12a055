"""Weights and offsets of a node whose channels are scaled by powers of two.

With x' = 2^-a x in place of what a layer reads and y' = 2^-b y in place of what it writes, each of
its weights is times 2^(a - b), and its bias times 2^-b. A norm or a sum with a constant hands the
scale of each channel on, so that only what it adds or subtracts is times 2^-b. A multiplication by
a power of two rounds nothing as long as both numbers are normal ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from flatfold.passes.decline import Decline
from flatfold.passes.lowering.rounding import LARGEST, TINY
from flatfold.passes.reading.layers import LAYERS
from flatfold.passes.reading.node import data_and_constant, number, weights
from flatfold.passes.scaling.channels import Labels
from flatfold.passes.stencil.geometry import Geometry
from flatfold.passes.stencil.kernels import Weight

Exponents = npt.NDArray[np.int64]

# Which inputs of an operator are added to its channels, or subtracted from them.
OFFSETS: Mapping[str, tuple[int, ...]] = {
    **dict.fromkeys(LAYERS, (2,)),
    "BatchNormalization": (2, 3),
}
SUMS = ("Add", "Sub", "Sum")


@dataclass(frozen=True, eq=False)
class Constant:
    """Input `index` of a node, with the number of the scale that it is divided by, and of the one
    that it is multiplied by; both can be broadcast to it."""

    index: int
    array: Weight
    divided: Labels
    multiplied: Labels | None = None

    def shifts(self, exponents: Exponents) -> Exponents:
        """The k of the 2^k that each element is multiplied by."""
        by = -exponents[self.divided]
        return by if self.multiplied is None else by + exponents[self.multiplied]

    def scaled(self, exponents: Exponents) -> Weight:
        """The constant for these scales, in its own type."""
        wide = np.promote_types(self.array.dtype, np.float32)
        factors = np.ldexp(np.ones((), wide), self.shifts(exponents))
        scaled: Weight = (self.array * factors).astype(self.array.dtype)
        return scaled

    def scaled_as(self, exact: Weight, exponents: Exponents) -> Weight:
        """`exact`, which the constant was rounded from, for these scales."""
        shape = self.array.shape
        placed = np.broadcast_to(
            exact.reshape(shape if exact.size == self.array.size else ()), shape
        )
        scaled: Weight = np.ldexp(placed, self.shifts(exponents))
        return scaled

    def lossy(self, exponents: Exponents) -> tuple[Labels, Decline] | None:
        """The numbers of scales at which elements leave the normal numbers, and why; or None."""
        shifts, dtype = self.shifts(exponents), ir.DataType.from_numpy(self.array.dtype)
        if self._stays_normal(int(np.max(np.abs(shifts), initial=0)), dtype):
            return None
        sizes = np.abs(self.array.astype(np.float64))
        scaled = np.ldexp(sizes, shifts)
        small = (np.minimum(sizes, scaled) < TINY[dtype]) & (sizes > 0) & (shifts != 0)
        large = (scaled > LARGEST[dtype]) & (shifts != 0)
        left = small | large
        if not left.any():
            return None
        labels = (one for one in (self.divided, self.multiplied) if one is not None)
        numbers = np.concatenate([np.broadcast_to(one, left.shape)[left] for one in labels])
        place = tuple(np.argwhere(left)[0])
        by = int(np.broadcast_to(shifts, left.shape)[place])
        what = f"a constant of {sizes[place]:.3g} times 2^{by} is no normal {dtype.name}"
        if small[place]:
            return np.unique(numbers), Decline("UNDERFLOW", what)
        return np.unique(numbers), Decline("OVERFLOW", what)

    def _stays_normal(self, most: int, dtype: ir.DataType) -> bool:
        """Whether every element does at any shift up to `most` bits."""
        sizes = np.abs(self.array)
        least = float(np.min(sizes, where=sizes > 0, initial=np.inf))
        largest = float(np.max(sizes, initial=0))
        return least * 2.0**-most >= TINY[dtype] and largest * 2.0**most <= LARGEST[dtype]


def constants_of(
    node: ir.Node, shape: Geometry, reads: Labels, writes: Labels
) -> Iterator[Constant]:
    """The constants that are scaled with the channels; `reads` and `writes` number the scales."""
    if node.op_type in LAYERS:
        array = weights(node, 1, "weight")
        rows, columns = _placed(node, shape, reads, writes, array.ndim)
        yield Constant(1, array, rows, columns)
    if node.op_type in SUMS:
        _, array, swapped = data_and_constant(node)
        column = np.broadcast_to(array.reshape(-1), (shape.outputs,))
        column = column.reshape(-1, *(1,) * shape.axes)
        yield Constant(int(not swapped), column, writes.reshape(column.shape))
    for index in OFFSETS.get(node.op_type, ()):
        if index < len(node.inputs) and node.inputs[index] is not None:
            array = weights(node, index, "constant")
            yield Constant(index, np.broadcast_to(array.reshape(-1), (shape.outputs,)), writes)


def _placed(
    node: ir.Node, shape: Geometry, reads: Labels, writes: Labels, axes: int
) -> tuple[Labels, Labels]:
    """The numbers of outputs and of inputs, as they lie along the stored weight of a layer."""
    rows, columns = writes.reshape(shape.groups, -1, 1), reads.reshape(shape.groups, 1, -1)
    if node.op_type == "ConvTranspose":
        rows, columns = rows.swapaxes(1, 2), columns.swapaxes(1, 2)
    if node.op_type == "MatMul" or (node.op_type == "Gemm" and not number(node, "transB", 0)):
        return rows.reshape(1, -1), columns.reshape(-1, 1)
    rows, columns = np.broadcast_arrays(rows, columns)
    sizes = (-1, rows.shape[2], *(1,) * (axes - 2))
    return rows.reshape(sizes), columns.reshape(sizes)
