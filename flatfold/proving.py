"""The verdict on a rewritten graph: both are run, on top of what was checked of each change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from flatfold.errors import NotEquivalent

if TYPE_CHECKING:
    from flatfold.proof.equivalence import Equivalence
    from flatfold.result import Optimized


def unknown() -> Equivalence:
    """The verdict where nothing was to be proved."""
    from flatfold.proof.equivalence import Equivalence

    return Equivalence("unknown", reason="verification is off")


def identical() -> Equivalence:
    """The verdict on a graph that was left as it is."""
    from flatfold.proof.equivalence import Equivalence

    return Equivalence("identical", reason="the two graphs have the same bytes")


def proved(result: Optimized, checks: Any, progress: Callable[[str], None]) -> Optimized:
    """`result` with the verdict on its graph; `checks` are those of its changes, if any were made.

    Raises NotEquivalent where the graph differs from the original.
    """
    from flatfold.proof.execute import compare

    progress("proving")
    found = compare(
        result.original,
        result.graph,
        reference=result.reference(),
        macs=result.before.macs or 0,
        progress=lambda label: progress(f"proving on {label}"),
    )
    regions = checks.regions if checks is not None else 0
    if found.verdict == "refuted" and not (regions and found.is_less_exact):
        raise NotEquivalent(str(found), where=f"input {found.worst_input}")
    if regions and found.verdict != "unknown":
        less = found.is_less_exact
        found = replace(
            found,
            verdict="certified" if checks.certified == regions and not less else "bounded",
            regions=regions,
            certified=checks.certified,
            region_ratio=checks.worst,
            doubts=tuple(checks.doubts),
            reason=(found.reason or "less exact than the original") if less else found.reason,
        )
    return replace(
        result, equivalence=found, changes=tuple(checks.entries) if checks is not None else None
    )
