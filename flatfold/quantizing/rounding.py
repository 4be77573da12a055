"""Weights as int8 codes: scales, codes to nearest, or by what the layer reads.

With x what a layer reads, rounding W to Q changes its output by (W - Q) x, in the mean square by
trace((W - Q) H (W - Q)^T), H = x x^T. Rounding one column of W after the other, and moving those to
come so that they undo what they can of it, makes that smaller than rounding each to nearest: GPTQ
(Frantar et al. 2022, arXiv 2210.17323).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from flatfold.passes.quantization.record import LARGEST_CODE, LEAST_SCALE, Codes
from flatfold.quantizing.layers import Columns, Layer

Array = npt.NDArray[np.float64]

SHARES = np.linspace(0.6, 1.0, 21)  # of the largest weight, that weights may be clipped to
DAMPING = 0.01  # of the mean of the diagonal of H, added to it
WIDTH = 128  # columns to which the errors of those in front of them are added at one time
LARGEST = 2048  # rows of H; a larger one is cut into blocks, and what is between them is left out


def scales_of(layer: Layer, *, per_channel: bool, clip: bool) -> npt.NDArray[np.float32]:
    """The scale of each output along the axis of the weight, or of all.

    With `clip` the one with the smallest mean square error, else that of the largest weight.
    """
    rows = np.moveaxis(layer.weight, layer.axis, 0).reshape(layer.weight.shape[layer.axis], -1)
    rows = rows if per_channel else rows.reshape(1, -1)
    largest = np.maximum(np.abs(rows).max(axis=1), LARGEST_CODE * LEAST_SCALE)
    best = (largest / LARGEST_CODE).astype(np.float32)
    if clip:
        least = np.full(len(rows), np.inf)
        for share in SHARES[::-1]:
            scale = (share * largest / LARGEST_CODE).astype(np.float32)
            lost = np.square(_rounded(rows, scale[:, None]) * scale[:, None] - rows).sum(axis=1)
            better = lost < least
            best, least = np.where(better, scale, best), np.where(better, lost, least)
    return best if per_channel else np.asarray(best[0])


def to_nearest(layer: Layer, scale: npt.NDArray[np.float32]) -> Codes:
    """The codes that are nearest to the weights."""
    axis = layer.axis if scale.ndim else None
    shape = [1] * layer.weight.ndim
    if axis is not None:
        shape[axis] = -1
    return Codes(_rounded(layer.weight, scale.reshape(shape)).astype(np.int8), scale, axis)


def by_reading(layer: Layer, scale: npt.NDArray[np.float32], hessian: Hessian) -> Codes:
    """Codes by what the layer reads; those to nearest of an output for which they are better."""
    nearest = to_nearest(layer, scale)
    matrices = layer.matrices().astype(np.float64)
    plain = layer.matrices(nearest.codes).astype(np.float64)
    steps = layer.by_row(scale).astype(np.float64)
    for group in range(layer.groups):
        for part, block in hessian.blocks(group):
            weights = matrices[group][:, part] / steps[group][:, None]
            other = gptq(weights, block)
            nearer = plain[group][:, part]
            lost = [_lost(weights - codes, block) for codes in (nearer, other)]
            plain[group][:, part] = np.where((lost[1] < lost[0])[:, None], other, nearer)
    return Codes(layer.from_matrices(plain).astype(np.int8), scale, nearest.axis)


def gptq(weights: Array, hessian: Array) -> Array:
    """Whole numbers in -127..127 for weights [outputs, K], whose scale is 1, by H [K, K].

    Columns with a large diagonal of H come first. With H = (I + F) D (I + F)^T, F above the
    diagonal and D on it, column k is rounded with (W - Q) F[:, k] of the columns in front of it
    added: that is GPTQ without the inverse of H (Chee et al. 2023, arXiv 2307.13304, theorem 6).
    """
    count = len(hessian)
    diagonal = np.diag(hessian)
    order = np.argsort(-diagonal, kind="stable")
    damped = hessian[np.ix_(order, order)] + np.eye(count) * (DAMPING * diagonal.mean() or 1.0)
    upper = np.linalg.cholesky(damped[::-1, ::-1])[::-1, ::-1]  # times its transpose it is H
    factors = upper / np.diag(upper)
    given, codes = weights[:, order], np.empty_like(weights)
    errors = np.empty_like(weights)
    for start in range(0, count, WIDTH):
        stop = min(start + WIDTH, count)
        part = given[:, start:stop] + errors[:, :start] @ factors[:start, start:stop]
        for k in range(start, stop):
            moved = part[:, k - start] + errors[:, start:k] @ factors[start:k, k]
            codes[:, order[k]] = rounded = _rounded(moved, 1.0)
            errors[:, k] = given[:, k] - rounded
    return codes


def _rounded(weights: npt.NDArray[Any], scale: npt.NDArray[np.float32] | float) -> npt.NDArray[Any]:
    return np.clip(np.rint(weights / scale), -LARGEST_CODE, LARGEST_CODE)


def _lost(difference: Array, hessian: Array) -> Array:
    """The diagonal of D H D^T."""
    return np.asarray(np.einsum("ok,ok->o", difference @ hessian, difference))


@dataclass(eq=False)
class Hessian:
    """x x^T of each group of a layer, in blocks of at most LARGEST rows."""

    parts: Sequence[slice]
    sums: list[list[npt.NDArray[np.float32]]]  # by group and part

    @classmethod
    def empty(cls, layer: Layer) -> Hessian:
        groups, _, rows = layer.matrices().shape
        parts = [slice(n, min(n + LARGEST, rows)) for n in range(0, rows, LARGEST)]
        sizes = [part.stop - part.start for part in parts]
        return cls(parts, [[np.zeros((n, n), np.float32) for n in sizes] for _ in range(groups)])

    @staticmethod
    def elements(layer: Layer) -> int:
        """How many numbers one has."""
        groups, _, rows = layer.matrices().shape
        whole, rest = divmod(rows, LARGEST)
        return int(groups * (whole * LARGEST**2 + rest**2))

    def add(self, columns: Columns) -> None:
        """Add x x^T of columns [groups, K, N]."""
        for sums, group in zip(self.sums, columns, strict=True):
            for total, part in zip(sums, self.parts, strict=True):
                total += group[part] @ group[part].T

    def blocks(self, group: int) -> Iterable[tuple[slice, Array]]:
        for part, total in zip(self.parts, self.sums[group], strict=True):
            yield part, total.astype(np.float64)
