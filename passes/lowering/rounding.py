"""Weights in float64 to the type of the graph: rounded once, and only where nothing is lost.

Every folded weight is at most the sum of |products| of the weights that it replaces, so on data on
which the original's sums of magnitudes stay within the type, no sum of the new layer leaves it.
Where they do not, s * (x - y) may be a number and s * x - s * y not; so weights whose sums leave
the type on data below the square root of its largest number are refused.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from flatfold.passes.decline import Decline
from flatfold.passes.stencil.kernels import Weight

# Largest number, smallest normal number and unit roundoff, by type.
LARGEST = {
    ir.DataType.DOUBLE: 2.0**1023 * (2 - 2.0**-52),
    ir.DataType.FLOAT: 2.0**128 - 2.0**104,
    ir.DataType.BFLOAT16: 2.0**128 - 2.0**120,
    ir.DataType.FLOAT16: 65504.0,
}
TINY = {
    ir.DataType.DOUBLE: 2.0**-1022,
    ir.DataType.FLOAT: 2.0**-126,
    ir.DataType.BFLOAT16: 2.0**-126,
    ir.DataType.FLOAT16: 2.0**-14,
}
FLUSHED = (ir.DataType.FLOAT, ir.DataType.BFLOAT16)  # smaller ones are 0 on some processors
BLOCK = 1 << 15  # elements
_EXACT = "flatfold.exact"
ROUNDOFF = {
    ir.DataType.DOUBLE: 2.0**-53,
    ir.DataType.FLOAT: 2.0**-24,
    ir.DataType.BFLOAT16: 2.0**-8,
    ir.DataType.FLOAT16: 2.0**-11,
}


def cast(array: Weight, dtype: ir.DataType, *, multiplies: bool = False) -> Weight:
    """One rounding from float64, of rows that are one output channel each.

    Raises Decline if a number overflows, or if those that `multiplies` data are lost to underflow.
    A bias loses no more than the output does, of which it is a part.
    """
    if array.dtype == dtype.numpy():
        _require_room(array, array, dtype, 0)
        return array
    rounded = np.empty_like(array, dtype.numpy())
    rows = max(1, BLOCK // max(array[0].size, 1))
    with np.errstate(over="ignore", under="ignore"):
        for start in range(0, len(array), rows):  # a block at a time stays in the cache
            block = slice(start, start + rows)
            rounded[block] = array[block]
            _require_room(array[block], rounded[block], dtype, start)
            if multiplies:
                _require_reach(array[block], dtype, start)
                _require_no_loss(array[block], rounded[block], dtype, start)
    return rounded


def nearest(array: npt.NDArray[Any], dtype: ir.DataType) -> npt.NDArray[Any]:
    """The nearest numbers of `dtype`, ties to even: one rounding, and nothing is refused.

    NumPy goes from float64 to bfloat16 by way of float32, which is two.
    """
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        if array.dtype == np.float64 and dtype == ir.DataType.BFLOAT16:
            _, exponents = np.frexp(array)
            steps = np.maximum(exponents - 8, -133)  # of 8 bits, and below 2^-126 of fewer
            array = np.ldexp(np.rint(np.ldexp(array, -steps)), steps)
        return array.astype(dtype.numpy())


def keep_exact(tensor: ir.TensorProtocol, exact: npt.NDArray[Any]) -> None:
    """Let a rounded constant remember what it was rounded from; files do not have it."""
    if exact.dtype != tensor.dtype.numpy():
        tensor.meta[_EXACT] = np.array(exact)  # the caller may sum into its own


def exact_of(value: ir.Value | None) -> npt.NDArray[Any] | None:
    """What the constant was rounded from, in float64; None where that was not kept."""
    if value is None or value.const_value is None:
        return None
    exact: npt.NDArray[Any] | None = value.const_value.meta.get(_EXACT)
    return exact


def _require_room(array: Weight, rounded: npt.NDArray[Any], dtype: ir.DataType, first: int) -> None:
    if np.all(np.isfinite(rounded)):
        return
    sizes = _rows(np.where(np.isfinite(rounded), 0.0, np.abs(array))).max(axis=1)
    worst = int(np.argmax(sizes))
    raise Decline(
        "OVERFLOW",
        f"a folded weight or bias of {sizes[worst]:.3g} in output channel {first + worst} exceeds"
        f" the largest {dtype.name}, {LARGEST[dtype]:.5g}",
    )


def _require_reach(array: Weight, dtype: ir.DataType, first: int) -> None:
    """Sums are in single precision at least."""
    reach = np.sum(_rows(np.abs(array)), axis=1)
    largest = max(LARGEST[dtype], LARGEST[ir.DataType.FLOAT])
    worst = int(np.argmax(reach))
    if reach[worst] > largest**0.5:
        raise Decline(
            "OVERFLOW",
            f"folded weights of output channel {first + worst} add up to {reach[worst]:.3g} times"
            f" their data, so that sums may exceed {largest:.5g} before terms cancel",
        )


def _require_no_loss(
    array: Weight, rounded: npt.NDArray[Any], dtype: ir.DataType, first: int
) -> None:
    """Weights below the smallest normal number lose digits; that matters if they carry weight."""
    size = _rows(np.abs(array))
    small = (size < TINY[dtype]) & (size > 0)
    if not np.any(small):
        return
    kept = _rows(np.abs(rounded.astype(np.float64)))
    if dtype in FLUSHED:
        kept = np.where(small, 0.0, kept)
    lost = np.sum(np.where(small, np.abs(size - kept), 0.0), axis=1)
    share = lost / np.maximum(np.sum(size, axis=1), np.finfo(np.float64).tiny)
    worst = int(np.argmax(share))
    if share[worst] > ROUNDOFF[dtype] / 4:
        least = float(np.min(size[worst][small[worst]]))
        raise Decline(
            "UNDERFLOW",
            f"a folded weight of {least:.3g} in output channel {first + worst} is less than"
            f" {TINY[dtype]:.3g}, below which {dtype.name} loses digits: {share[worst]:.2g} of what"
            " the channel weighs would be lost",
        )


def _rows(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return array.reshape(len(array), -1)


@contextlib.contextmanager
def within_range() -> Iterator[None]:
    """Arithmetic on weights in float64. Raises Decline where it leaves the range of that."""
    try:
        with np.errstate(all="raise"):
            yield
    except FloatingPointError as what:
        reason = f"weights multiply to beyond double precision, 1e-308 to 1.8e+308: {what}"
        if "underflow" in reason:
            raise Decline("UNDERFLOW", reason) from None
        raise Decline("OVERFLOW", reason) from None
