"""Every error flatfold raises on purpose, drawn here as one tree.

FlatfoldError
├─ InputError           a model, weights or option cannot be used as given
│  ├─ ExportError       the module could not be captured, or the export breaks an entry invariant
│  ├─ CalibrationMissing  8 bits need data to see how large values are
│  └─ UnknownName       no such model, target or pass; lists the close ones
├─ PassError            a rewrite broke its promise; our bug; names the rewrite
│  └─ NotEquivalent     outputs differ by more than the bound; carries the numbers
├─ Degraded             8 bits lose more than is allowed; carries the numbers
├─ Inconclusive         neither agreement nor a difference could be shown
├─ Regression           slower than a baseline by more than was allowed
├─ OutputError          a file or folder cannot be written
└─ TargetError
   ├─ TargetUnavailable package or device missing; says what to install
   ├─ PrecisionUnavailable  the target does not compute in this precision
   ├─ BuildError        the engine refused the model; carries the engine's log
   └─ Inaccurate        the engine computes something else, although its graph is right

A message states what was expected and what was found (`cause`), the place (`where`) and what to
do next (`hint`). `exit_code` is the process exit status of the command line.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from flatfold.text import one_line


class FlatfoldError(Exception):
    """Base of all errors raised on purpose."""

    code = "INTERNAL"
    exit_code = 1

    def __init__(self, cause: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(cause)
        self.cause = cause
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        """Three lines at most, in which names from a model cannot act on a terminal."""
        lines = [f"error[{self.code}]: {one_line(self.cause)}"]
        if self.where:
            lines.append(f"  where: {one_line(self.where)}")
        if self.hint:
            lines.append(f"  try: {one_line(self.hint)}")
        return "\n".join(lines)


class InputError(FlatfoldError):
    """A model file, weights or an option cannot be used as given."""

    code = "INPUT"
    exit_code = 3


class ExportError(InputError):
    """The module could not be captured as a graph, or the graph breaks an entry invariant."""

    code = "EXPORT"


class CalibrationMissing(InputError):
    """A graph in 8 bits needs data that shows how large its values are."""

    code = "CALIBRATION"


class UnknownName(InputError):
    """No model, target or pass of this name."""

    code = "NAME"
    exit_code = 2

    def __init__(self, kind: str, name: str, known: Iterable[str], *, hint: str = "") -> None:
        names = sorted(known)
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
        close = f"did you mean {' or '.join(near)}?" if near else ""
        super().__init__(
            f"unknown {kind} {name!r}",
            hint=" ".join(part for part in (close, hint) if part) or f"one of {', '.join(names)}",
        )
        self.near = near


class OutputError(FlatfoldError):
    """A file or folder cannot be written."""

    code = "OUTPUT"
    exit_code = 2


class PassError(FlatfoldError):
    """A rewrite broke its promise. This is a bug in flatfold; please report it."""

    code = "PASS"


class NotEquivalent(PassError):
    """Outputs differ by more than the rounding bound; the message carries the numbers."""

    code = "NOT-EQUIVALENT"
    exit_code = 4


class Degraded(FlatfoldError):
    """A graph in 8 bits loses more than is allowed; the message carries the numbers."""

    code = "DEGRADED"
    exit_code = 4


class Inconclusive(FlatfoldError):
    """Neither that two models agree nor that they differ could be shown; or one of several models
    could not be measured."""

    code = "INCONCLUSIVE"
    exit_code = 7


class Regression(FlatfoldError):
    """An engine is slower than in an older report, by more than was allowed; or no longer right."""

    code = "REGRESSION"
    exit_code = 5


class TargetError(FlatfoldError):
    """Something about the target to compile for."""

    code = "TARGET"
    exit_code = 6


class TargetUnavailable(TargetError):
    """A package or a device that the target needs is missing."""

    code = "TARGET-UNAVAILABLE"


class PrecisionUnavailable(TargetError):
    """The target does not compute in the precision that is asked for."""

    code = "PRECISION"


class BuildError(TargetError):
    """The engine refused the model; the message carries the end of the engine's log."""

    code = "BUILD"
    exit_code = 8


class Inaccurate(TargetError):
    """The engine's outputs are off by more than its precision explains; its graph is right."""

    code = "INACCURATE"
    exit_code = 4
