"""How a graph computes: the precision that is asked for, and what keeps float32 besides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from flatfold.errors import InputError, UnknownName

PRECISIONS = ("fp32", "fp16", "bf16")
# Decibels of signal over rounding noise that each operator keeps. In bfloat16 rounding a value
# leaves 53 dB, in float16 72 dB: one that keeps less than 50 dB is no better off in float16 than in
# bfloat16, and one that keeps less than 30 dB in bfloat16 has lost four of its eight bits.
BUDGET = {"fp16": 50.0, "bf16": 30.0}


@dataclass(frozen=True)
class Precision:
    """How a graph computes: "fp32", "fp16" or "bf16", and what keeps float32 besides.

    `keep_float` has names of nodes or values and patterns of them such as "head.*", or operators.
    `narrow_io`: inputs and outputs have the type, too. `budget` is in decibels. Raises UnknownName
    and InputError.
    """

    kind: str = "fp32"
    keep_float: tuple[str, ...] = ()
    narrow_io: bool = False
    budget: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in PRECISIONS:
            raise UnknownName("precision", self.kind, PRECISIONS)
        if self.kind == "fp32" and (self.keep_float or self.narrow_io):
            raise InputError(
                "expected a precision of fp16 or bf16 with what keeps float32, found fp32",
                hint="give precision='fp16' or 'bf16', or leave keep_float out",
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
        }


FULL = Precision()
