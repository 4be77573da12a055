"""How a float graph is quantised, for any target: ranges of values, codes of weights, biases.

A value x is stored as the code clip(round(x / scale) + zero point), which stands for the number
scale * (code - zero point); a weight as such a code of its own with zero point 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from flatfold.passes.narrow_types import Kept

LARGEST_CODE = 127  # of a weight; -128 has no counterpart and is not used
LEAST_SCALE = float(np.finfo(np.float32).tiny)  # below it a number of float32 has fewer digits
ENDS = {"uint8": (0, 255), "int8": (-128, 127)}  # the codes of values


@dataclass(frozen=True)
class Range:
    """What a value reaches on data, or what is kept of it: low <= 0 <= high."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not self.low <= 0 <= self.high:
            raise ValueError(f"expected low <= 0 <= high, found {self.low} and {self.high}")

    def grid(self, codes: str) -> tuple[np.float32, int]:
        """The scale and the zero point of codes of type "uint8", or "int8" with zero point 0.

        0 is a code of its own in both. What is above the largest code is clipped to it.
        """
        if codes == "int8":
            reach = max(-self.low, self.high)
            return np.float32(max(reach / LARGEST_CODE, LEAST_SCALE)), 0
        scale = np.float32(max((self.high - self.low) / 255, LEAST_SCALE))
        return scale, int(np.clip(np.rint(-self.low / scale), 0, 255))


@dataclass(frozen=True, eq=False)
class Codes:
    """A weight as int8 codes in -127..127: about scale * codes.

    `scale` is one number of float32, or one for each index along `axis`.
    """

    codes: npt.NDArray[np.int8]
    scale: npt.NDArray[np.float32]
    axis: int | None = None

    def along(self) -> npt.NDArray[np.float32]:
        """The scale, in a shape that multiplies the codes."""
        if self.axis is None:
            return self.scale
        shape = [1] * self.codes.ndim
        shape[self.axis] = -1
        return self.scale.reshape(shape)

    def weight(self) -> npt.NDArray[np.float32]:
        """The numbers that the codes stand for, as DequantizeLinear computes them."""
        return self.along() * self.codes.astype(np.float32)


@dataclass
class Quantization:
    """How the nodes of a graph are quantised.

    `ranges` is by name of a value. The others are by name of a node: `weights` of Conv,
    ConvTranspose, Gemm and MatMul with a constant weight, which are the layers that compute on
    codes; `biases`, in float64, where they are other ones than in the graph; `kept`, what computes
    in float and why.
    """

    ranges: dict[str, Range] = field(default_factory=dict)
    weights: dict[str, Codes] = field(default_factory=dict)
    biases: dict[str, npt.NDArray[np.float64]] = field(default_factory=dict)
    kept: Mapping[str, Kept] = field(default_factory=dict)
