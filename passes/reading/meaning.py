"""What an operator can mean: Applied, Summed, Joined or Transparent."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from flatfold.passes.reading.node import (
    channel_count,
    either_axes,
)
from flatfold.passes.stencil.kernels import Array
from flatfold.passes.stencil.stencil import Stencil, diagonal


@dataclass(frozen=True)
class Applied:
    """stencil(source), by the node itself and those that make the values `through`.

    `sampling`: (samples, multiply-accumulates) for each output pixel, where the node is a sampler
    and not a layer. `warning` is about numbers that are odd, though no reason to decline. `fill` is
    what stands around the map in place of 0, where the stencil moves pixels and does nothing else.
    """

    source: ir.Value
    stencil: Stencil
    through: tuple[ir.Value, ...] = ()
    warning: str = ""
    sampling: tuple[int, int] | None = None
    fill: float = 0.0


@dataclass(frozen=True)
class Summed:
    """sum of sign * value."""

    operands: tuple[tuple[int, ir.Value], ...]


@dataclass(frozen=True, eq=False)
class Fill:
    """Rows of one number per channel at the start or the end."""

    numbers: Array
    rows: int
    at_start: bool


@dataclass(frozen=True)
class Joined:
    """Values put side by side along an axis that is not the batch, constants at its ends."""

    values: tuple[ir.Value, ...]
    axis: int
    fills: tuple[Fill, ...] = ()


@dataclass(frozen=True, eq=False)
class Transparent:
    """An operator that a map of the channels passes through.

    Spatial axes of the map afterwards, if it mixes axis 1 (`spatial`) or the last one (`matrix`);
    None if it does not pass. Each channel is `repeat` features afterwards.
    `positive`: only a positive scale and a shift pass, as through a maximum. `moved`: only a scale
    and a shift pass, and channel j afterwards is channel `moved[j]`; `through` are values between
    the operators, the last one first, where it takes several.
    """

    source: ir.Value
    spatial: int | None
    matrix: int | None
    repeat: int = 1
    positive: bool = False
    moved: npt.NDArray[np.int64] | None = None
    through: tuple[ir.Value, ...] = ()


Linear = Applied | Summed | Joined | Transparent


def operands(linear: Linear) -> tuple[ir.Value, ...]:
    """The values that it reads."""
    if isinstance(linear, Applied | Transparent):
        return (linear.source,)
    if isinstance(linear, Joined):
        return linear.values
    return tuple(value for _, value in linear.operands)


def scale(data: ir.Value, factor: float = 1.0) -> Applied:
    """factor * data."""
    axes = either_axes(data)
    return Applied(data, diagonal(np.full(channel_count(data, axes), factor), None, axes))
