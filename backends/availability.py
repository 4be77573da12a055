"""Whether a target can be used here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Availability:
    """Whether a backend can be used on this machine; if not, why, and what would change that.

    One that is available but does not run here builds engines for other machines.
    """

    available: bool
    reason: str
    hint: str = ""
    runs: bool = True
