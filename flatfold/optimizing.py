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
    from flatfold.proof.region import RegionChecks
    from flatfold.proving import identical, proved, unknown
    from flatfold.resolve import is_same, reference_of
    from flatfold.rewriting import rewritten

    progress("rewriting")
    verify = choice.verify
    checks = RegionChecks(certifying=verify == "certify") if verify in VERIFY[2:] else None
    graph, training, remarks = rewritten(source.model, choice.pipeline(checks))
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


class Results:
    """What `optimized` makes of one graph for several targets, proved once where that is the same.

    The choices may differ in their target, and in nothing else.
    """

    def __init__(self, source: Source, progress: Progress) -> None:
        self.source, self.progress = source, progress
        self._by_costs: dict[str, Optimized] = {}

    def of(self, choice: Choice) -> Optimized:
        """The same object for all targets that come to the same graph."""
        from flatfold.rewriting import profile_of

        costs = profile_of(choice.target).name
        if costs not in self._by_costs:
            found = self._known(choice) or optimized(self.source, choice, self.progress)
            self._by_costs[costs] = found
        return self._by_costs[costs]

    def _known(self, choice: Choice) -> Optimized | None:
        """To rewrite without a proof, and to compare, takes less than to prove."""
        from flatfold.proof.certificate import fingerprint
        from flatfold.rewriting import rewritten

        if not self._by_costs or choice.simplify:
            return None
        self.progress("rewriting")
        graph, _, _ = rewritten(self.source.model, choice.pipeline())
        wanted, results = fingerprint(graph), self._by_costs.values()
        return next((r for r in results if fingerprint(r.graph) == wanted), None)
