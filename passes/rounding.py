"""Weights in float64 to the type of the graph: rounded once, and only where nothing is lost."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from flatfold.passes.geometry import Decline
from flatfold.passes.kernels import Weight

# Smallest normal number and unit roundoff, by type.
TINY = {
    ir.DataType.DOUBLE: 2.0**-1022,
    ir.DataType.FLOAT: 2.0**-126,
    ir.DataType.BFLOAT16: 2.0**-126,
    ir.DataType.FLOAT16: 2.0**-14,
}
BLOCK = 1 << 15  # elements
ROUNDOFF = {
    ir.DataType.DOUBLE: 2.0**-53,
    ir.DataType.FLOAT: 2.0**-24,
    ir.DataType.BFLOAT16: 2.0**-8,
    ir.DataType.FLOAT16: 2.0**-11,
}


def cast(array: Weight, dtype: ir.DataType) -> npt.NDArray[np.generic]:
    """One rounding from float64; Decline if a weight overflows or is lost to underflow."""
    if array.dtype == dtype.numpy():
        return array
    rounded = np.empty_like(array, dtype.numpy())
    rows = max(1, BLOCK // max(array[0].size, 1))
    with np.errstate(over="ignore", under="ignore"):
        for start in range(0, len(array), rows):  # a block at a time stays in the cache
            block = slice(start, start + rows)
            rounded[block] = array[block]
            _require_finite(array[block], rounded[block], dtype)
            _require_no_underflow(array[block], rounded[block], dtype)
    return rounded


def _require_finite(array: Weight, rounded: npt.NDArray[Any], dtype: ir.DataType) -> None:
    if np.all(np.isfinite(rounded)):
        return
    if not np.all(np.isfinite(array)):
        raise Decline("NONFINITE", "a weight is infinite or not a number")
    worst = float(np.max(np.abs(array)))
    raise Decline("OVERFLOW", f"a folded weight of {worst:.3g} overflows {dtype.name}")


def _require_no_underflow(array: Weight, rounded: npt.NDArray[Any], dtype: ir.DataType) -> None:
    """Weights below the smallest normal number lose digits; that matters if they carry weight.

    A bias loses no more than the output does, of which it is a part.
    """
    if array.ndim == 1:
        return
    size = np.abs(array)
    small = (size < TINY[dtype]) & (size > 0)
    if not np.any(small):
        return
    within = tuple(range(1, array.ndim))
    lost = np.sum(np.where(small, np.abs(array - rounded.astype(np.float64)), 0.0), axis=within)
    if np.any(lost > ROUNDOFF[dtype] / 4 * np.sum(size, axis=within)):
        least = float(np.min(size[small]))
        raise Decline("UNDERFLOW", f"a folded weight of {least:.3g} underflows {dtype.name}")
