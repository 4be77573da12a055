"""Target "auto": each target that runs here, built and timed in turn in one run; the fastest wins.

Where the timings cannot tell it from the fastest, the target that needs the fewest packages wins.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from flatfold.errors import FlatfoldError
from flatfold.system.progress import Progress, silent

if TYPE_CHECKING:
    from flatfold.backends.base import Engine
    from flatfold.timing import Ratio, Timing


BUDGET_S = 3.0  # for each engine
SAME = 0.01  # a difference that nobody notices, however sure it is


@dataclass(frozen=True)
class Candidate:
    """One target: how long it takes, and how many times as long as the fastest; or why not."""

    target: str
    needs: int
    median_s: float | None = None
    interval_s: tuple[float, float] | None = None
    slower: Ratio | None = None
    reason: str = ""

    def to_dict(self) -> dict[str, Any]:
        ratio = self.slower
        return {
            "target": self.target,
            "median_s": self.median_s,
            "interval_s": self.interval_s,
            "slower": None if ratio is None else {"value": ratio.value, "interval": ratio.interval},
            "reason": self.reason,
        }


@dataclass(frozen=True)
class Choice:
    """What was chosen, why, and what there was to choose from."""

    target: str
    because: str
    candidates: tuple[Candidate, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        candidates = [candidate.to_dict() for candidate in self.candidates]
        return {"target": self.target, "because": self.because, "candidates": candidates}


def choose(
    targets: Sequence[str],
    build: Callable[[str], Engine],
    needs: Mapping[str, int],
    progress: Progress = silent,
) -> tuple[Choice, Engine]:
    """Build an engine for each of `targets` with `build`, and time them on the same inputs.

    Returns the choice and its engine; the other engines are closed. `needs` counts the packages
    that a target asks for. A target that refuses the model, or whose engine is not right, is left
    out with its reason. Raises that of the first if all are.
    """
    engines: dict[str, Engine] = {}
    refused: dict[str, FlatfoldError] = {}
    try:
        for target in targets:
            try:
                engines[target] = build(target)
            except FlatfoldError as error:
                refused[target] = error
        if not engines:
            raise next(iter(refused.values()))
        left_out = tuple(Candidate(t, needs[t], reason=e.cause) for t, e in refused.items())
        found = _chosen(engines, list(refused), needs, progress)
        choice = replace(found, candidates=(*found.candidates, *left_out))
        return choice, engines.pop(choice.target)
    finally:
        for engine in engines.values():
            engine.close()


def _chosen(
    engines: Mapping[str, Engine],
    refused: Sequence[str],
    needs: Mapping[str, int],
    progress: Progress,
) -> Choice:
    if len(engines) == 1:
        (only,) = engines
        others = " and ".join(refused)
        return Choice(only, f"{others} cannot run it" if others else "it is the only target here")
    progress(f"timing {', '.join(engines)}")
    try:
        return decided(_timings(engines), needs)
    except FlatfoldError as error:
        simplest = min(engines, key=lambda target: needs[target])
        return Choice(simplest, f"it needs the fewest packages; no timing: {error.cause}")


def decided(timings: Mapping[str, Timing], needs: Mapping[str, int]) -> Choice:
    """The choice that timings of the same rounds lead to."""
    from flatfold.timing import interleaved_ratio

    fastest = min(timings, key=lambda target: timings[target].median)
    candidates = [
        Candidate(
            target,
            needs[target],
            timing.median,
            timing.interval,
            interleaved_ratio(timing, timings[fastest]),
        )
        for target, timing in sorted(timings.items(), key=lambda item: item[1].median)
    ]
    level = [c for c in candidates if c.target == fastest or _is_level(c)]
    winner = min(level, key=lambda c: c.needs)  # the first, so the faster one, of equals
    return Choice(winner.target, _because(winner, candidates, fastest), tuple(candidates))


def _is_level(candidate: Candidate) -> bool:
    assert candidate.slower is not None
    return candidate.slower.interval[0] <= 1 + SAME


def _because(winner: Candidate, candidates: Sequence[Candidate], fastest: str) -> str:
    if winner.target != fastest:
        low, high = winner.slower.interval if winner.slower else (1.0, 1.0)
        return (
            f"it needs fewer packages than {fastest}, from which it cannot be told: "
            f"{low:.2f} to {high:.2f} times as long"
        )
    others = [c for c in candidates if c is not winner]
    second = others[0]
    assert second.slower is not None
    low, high = second.slower.interval
    if _is_level(second):
        return f"it cannot be told from {second.target}, which needs no fewer packages"
    return f"{second.target} takes {second.slower.value:.2f} times as long [{low:.2f}, {high:.2f}]"


def _timings(engines: Mapping[str, Engine]) -> dict[str, Timing]:
    from flatfold.backends.tensors import drawn, shapes_of
    from flatfold.timing import measure

    inputs = next(iter(engines.values())).inputs
    feeds = drawn(inputs, shapes_of(inputs, None, None))
    runs = {target: engine.bind(feeds) for target, engine in engines.items()}
    return measure(runs, budget_s=BUDGET_S * len(runs))
