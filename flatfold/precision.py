"""How a graph computes: the precision that is asked for, and what keeps float32 besides."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flatfold.errors import CalibrationMissing, InputError, UnknownName

PRECISIONS = ("fp32", "fp16", "bf16", "int8", "mixed")
IN_CODES = ("int8", "mixed")  # whose layers compute on codes of 8 bits
DROP = 0.005  # that "mixed" allows where nothing else is said: half a point
# Decibels of signal over rounding noise that each operator keeps. In bfloat16 rounding a value
# leaves 53 dB, in float16 72 dB: one that keeps less than 50 dB is no better off in float16 than in
# bfloat16, and one that keeps less than 30 dB in bfloat16 has lost four of its eight bits.
BUDGET = {"fp16": 50.0, "bf16": 30.0}


@dataclass(frozen=True)
class Precision:
    """How a graph computes: "fp32", "fp16", "bf16", "int8" or "mixed", and what keeps float32.

    `keep_float` has names of nodes or values and patterns of them such as "head.*", or operators.
    `narrow_io`: inputs and outputs have the type, too. `budget` is in decibels. "mixed" is "int8"
    with as many layers in float32 as it takes to lose no more than `max_drop`: of `accuracy`, a
    function of a function that runs the model, or of the share of inputs with the same largest
    score as in float32. Raises UnknownName and InputError.
    """

    kind: str = "fp32"
    keep_float: tuple[str, ...] = ()
    narrow_io: bool = False
    budget: float | None = None
    max_drop: float | None = None
    accuracy: Callable[[Any], float] | None = None

    def __post_init__(self) -> None:
        if self.kind not in PRECISIONS:
            raise UnknownName("precision", self.kind, PRECISIONS)
        if self.kind == "fp32" and (self.keep_float or self.narrow_io):
            raise InputError(
                "expected another precision with what keeps float32, found fp32",
                hint="give precision='fp16', 'bf16' or 'int8', or leave keep_float out",
            )
        if self.narrow_io and self.in_codes:
            raise InputError(
                f"expected inputs and outputs in float32 with precision {self.kind}",
                hint="leave narrow_io out",
            )
        if not self.in_codes and (self.max_drop is not None or self.accuracy is not None):
            raise InputError(
                f"expected precision int8 or mixed with what may be lost, found {self.kind}",
                hint="leave max_drop and accuracy out",
            )
        if self.max_drop is not None and not 0 <= self.max_drop < 1:
            raise InputError(f"expected a share from 0 to 1 as max_drop, found {self.max_drop:g}")

    @property
    def in_codes(self) -> bool:
        """Whether layers compute on codes of 8 bits."""
        return self.kind in IN_CODES

    @property
    def allowed_drop(self) -> float | None:
        """What may be lost; None where nothing was said."""
        return DROP if self.kind == "mixed" and self.max_drop is None else self.max_drop

    def require(self, calibration: object) -> None:
        """Raise CalibrationMissing where data is needed and there is none."""
        if self.in_codes and calibration is None:
            raise CalibrationMissing(
                f"precision {self.kind} needs data that shows how large the values are",
                hint="give calibration= (--calibration): some 32 to 64 typical inputs as an array, "
                "an .npz file or a folder of images; 'random' only to see how fast it is",
            )

    @property
    def least(self) -> float:
        """The decibels that each operator has to keep."""
        return BUDGET[self.kind] if self.budget is None else self.budget

    def to_dict(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "keep_float": list(self.keep_float),
            "narrow_io": self.narrow_io,
            "budget": self.budget,
            "max_drop": self.max_drop,
        }


FULL = Precision()
