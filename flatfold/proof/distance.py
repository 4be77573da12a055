"""How far outputs are from each other."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from flatfold.proof.reference import Outputs

Array = npt.NDArray[Any]


def close(exact: Outputs, original: Outputs, most: float) -> bool:
    """Whether both have the same shapes, and their floats differ by at most `most` of the range."""
    if [np.shape(y) for y in exact] != [np.shape(a) for a in original]:
        return False
    for y, a in zip(exact, original, strict=True):
        y, a = np.asarray(y), np.asarray(a)
        finite = np.isfinite(y) & np.isfinite(a) if y.dtype.kind == "f" else np.zeros(y.shape, bool)
        scale = float(np.max(np.abs(y[finite]), initial=0.0)) or 1.0
        gap = np.abs(a[finite].astype(np.float64) - y[finite]) / scale
        if not np.max(gap, initial=0.0) <= most:
            return False
    return True


def distance(y: Array, exact: Array, scale: float) -> tuple[float, float]:
    """(largest, root mean square) error relative to `scale`; none where both are the same NaN."""
    same = (y == exact) | (np.isnan(y) & np.isnan(exact))
    with np.errstate(invalid="ignore"):
        error = np.where(same, 0.0, np.abs(y.astype(np.float64) - exact) / scale)
    if error.size == 0:
        return 0.0, 0.0
    if not np.all(np.isfinite(error)):
        return np.inf, np.inf
    return float(error.max()), float(np.sqrt(np.mean(error**2)))
