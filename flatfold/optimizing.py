"""From a graph to the rewritten one: clean, rewrite, prove."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from flatfold.result import Optimized
from flatfold.rewriting import VERIFY, Choice

if TYPE_CHECKING:
    from flatfold.frontend.source import Source

Progress = Callable[[str], None]


def silent(_: str) -> None:
    """Progress that nobody wants to see."""


def optimized(source: Source, choice: Choice, progress: Progress) -> Optimized:
    """What the rewrites chosen make of a graph, with the proof that was asked for.

    Raises NotEquivalent rather than return a graph that differs.
    """
    from flatfold.passes import Pipeline
    from flatfold.proof.region import RegionChecks
    from flatfold.proving import identical, proved, unknown
    from flatfold.resolve import is_same, reference_of
    from flatfold.rewriting import profile_of, rewritten

    progress("rewriting")
    verify = choice.verify
    checks = RegionChecks(certifying=verify == "certify") if verify in VERIFY[2:] else None
    pipeline = Pipeline(choice.rewrites(), profile_of(choice.target), checks)
    graph, training, remarks = rewritten(source.model, pipeline)
    if choice.simplify:
        from flatfold.frontend.simplify import simplify as clean

        progress("simplifying")
        graph, checks = clean(graph), None  # what onnxsim does is sampled, not bounded
    result = Optimized(
        source.name,
        graph,
        source.model,
        training,
        tuple(remarks),
        unknown(),
        reference=lambda: reference_of(source),
    )
    if verify == "off":
        return result
    if not any(remark.applied for remark in remarks) and is_same(source.model, graph):
        return replace(result, equivalence=identical())
    return proved(result, checks, progress)
