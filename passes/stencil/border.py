"""A bias per channel that differs near the border: what padding makes of a bias.

Along each axis a border bias has `low` rows of its own at the start, one row that stands for all in
between, however many these are, and `high` rows of its own at the end. DBB (Ding et al. 2021) pads
each channel with the image of 0 under the normalization, by writing it over a border of zeros: with
that added, the bias is the same everywhere again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from flatfold.passes.decline import Decline
from flatfold.passes.stencil import kernels
from flatfold.passes.stencil.geometry import Ints, Sizes
from flatfold.passes.stencil.kernels import Array


@dataclass(frozen=True, eq=False)
class BorderBias:
    """`values`: [C, low + 1 + high, ..] with one entry per class of rows along each axis."""

    values: Array
    low: Ints
    high: Ints

    @property
    def axes(self) -> int:
        return len(self.low)

    @property
    def border(self) -> str:
        """Where it is another than inside, in words."""
        return f"on the first {self.low} and the last {self.high} rows"

    def uniform_bias(self, tolerance: float) -> Array | None:
        """One number per channel, if the plane is the same everywhere but for rounding.

        It is the number of the inside, computed here in full; what is written on the border was
        rounded to the type of the graph on its way there, beta - mean * s term by term. So
        `tolerance` is relative to the largest number of any channel.
        """
        middle: tuple[Any, ...] = (slice(None), *self.low)
        inside: Array = self.values[middle]
        column = inside.reshape(-1, *(1,) * self.axes)
        alike = np.abs(self.values - column) <= tolerance * np.max(np.abs(self.values), initial=0.0)
        return inside.copy() if bool(np.all(alike)) else None


def uniform(bias: Array | None, channels: int, axes: int) -> BorderBias:
    """The same everywhere."""
    values = kernels.zeros(channels) if bias is None else bias
    return BorderBias(values.reshape(-1, *(1,) * axes), (0,) * axes, (0,) * axes)


def edge_fill(value: Array, axes: int, axis: int, rows: int, at_start: bool) -> BorderBias:
    """`value` on so many rows at the start or end of an axis, 0 elsewhere."""
    inside = BorderBias(kernels.zeros((len(value), *(1,) * axes)), (0,) * axes, (0,) * axes)
    here = tuple(rows * (i == axis) for i in range(axes))
    return pad_border(
        inside, *((here, (0,) * axes) if at_start else ((0,) * axes, here)), (), value
    )


def pad_border(
    border: BorderBias, begin: Ints, end: Ints, sizes: Sizes, fill: Array | None = None
) -> BorderBias:
    """With `fill` (default 0) around it, or cropped where begin or end is negative.

    `sizes`: of the map before, needed where a crop goes beyond the rows that have their own entry.
    """
    values, low, high = border.values, list(border.low), list(border.high)
    for axis in range(border.axes):
        for side, counts in (((begin[axis], 0), low), ((0, end[axis]), high)):
            more = sum(side)
            if more > 0:
                width = [(0, 0)] * values.ndim
                width[axis + 1] = side
                values = _filled(values, width, axis, more, side[0] > 0, fill)
            elif more < 0:
                cut = min(-more, counts[axis])
                _require_rows(border, axis, -more - cut, sizes)
                index = (
                    slice(cut, None) if side[0] < 0 else slice(None, values.shape[axis + 1] - cut)
                )
                values = values[(slice(None),) * (axis + 1) + (index,)]
                more = -cut
            counts[axis] += more
    return BorderBias(values, tuple(low), tuple(high))


def _filled(
    values: Array,
    width: list[tuple[int, int]],
    axis: int,
    rows: int,
    at_start: bool,
    fill: Array | None,
) -> Array:
    padded = np.pad(values, width)
    if fill is not None:
        index = slice(0, rows) if at_start else slice(padded.shape[axis + 1] - rows, None)
        padded[(slice(None),) * (axis + 1) + (index,)] = fill.reshape(-1, *(1,) * (values.ndim - 1))
    return padded


def _require_rows(border: BorderBias, axis: int, rows: int, sizes: Sizes) -> None:
    """Decline unless there surely are so many rows in between, and one more."""
    if not rows:
        return
    size = sizes[axis] if axis < len(sizes) else None
    if size is None or size - border.low[axis] - border.high[axis] <= rows:
        known_size = "unknown" if size is None else str(size)
        raise Decline(
            "BORDER-BIAS",
            f"a crop may reach {rows} rows beyond the border of a padded map of size {known_size}",
        )


def add_borders(one: BorderBias, two: BorderBias, sizes: Sizes) -> BorderBias:
    """The sum of two planes over one map of these sizes."""
    low = tuple(max(a, b) for a, b in zip(one.low, two.low, strict=True))
    high = tuple(max(a, b) for a, b in zip(one.high, two.high, strict=True))
    for axis, (first, last) in enumerate(zip(low, high, strict=True)):
        sure = max(border.low[axis] + border.high[axis] for border in (one, two))
        size = sizes[axis] if axis < len(sizes) else None
        if first + last > (sure if size is None else size):
            known_size = "unknown" if size is None else str(size)
            raise Decline(
                "BORDER-BIAS", f"borders of {first} and {last} rows on a map of size {known_size}"
            )
    parts = [_refined(border, low, high) for border in (one, two)]
    return BorderBias(parts[0] + parts[1], low, high)


def _refined(border: BorderBias, low: Ints, high: Ints) -> Array:
    values = border.values
    for axis in range(border.axes):
        before, after = low[axis] - border.low[axis], high[axis] - border.high[axis]
        times = np.ones(values.shape[axis + 1], dtype=np.int64)
        times[border.low[axis]] += before + after
        values = np.repeat(values, times, axis=axis + 1)
    return values


def scale_border(border: BorderBias, factor: Array | float) -> BorderBias:
    """factor per channel, or one for all."""
    column = np.broadcast_to(factor, (len(border.values),))
    return BorderBias(
        border.values * column.reshape(-1, *(1,) * border.axes), border.low, border.high
    )
