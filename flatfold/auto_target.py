"""Target "auto": builds an engine for each target that runs here and times them in one run.

The fastest wins. Where the timings cannot tell a target from the fastest, the one that needs the
fewest packages wins.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from flatfold.errors import FlatfoldError
from flatfold.system.progress import Progress, silent

if TYPE_CHECKING:
    from flatfold.backends import Engine
    from flatfold.timing import Estimate, Timing


BUDGET_S = 3.0  # for each engine
SAME = 0.01  # a difference that nobody notices, however sure it is


@dataclass(frozen=True)
class Candidate:
    """One target: its time, and how many times that of the fastest; or the reason it has none.

    `needs` is the number of packages to install besides flatfold's own.
    """

    target: str
    needs: int
    median_s: float | None = None
    interval_s: tuple[float, float] | None = None
    slower: Estimate | None = None
    reason: str = ""

    def to_dict(self) -> dict[str, Any]:
        return {
            "target": self.target,
            "median_s": self.median_s,
            "interval_s": self.interval_s,
            "slower": None if self.slower is None else self.slower.to_dict(),
            "reason": self.reason,
        }


@dataclass(frozen=True)
class AutoTarget:
    """The target that "auto" stands for, the reason, and the candidates it was chosen from."""

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
    likely: Callable[[], Mapping[str, Sequence[int]]] = dict,
) -> tuple[AutoTarget, Engine]:
    """Build an engine for each of `targets` with `build`, and time them on the same inputs.

    Returns the choice and its engine; the other engines are closed. `needs` counts the packages
    that each target needs, `likely` finds shapes for inputs with open axes, where it is timed. A
    target that refuses the model, or whose engine is inaccurate, is left out with its reason.
    Raises the error of the first target if all are left out.
    """
    engines: dict[str, Engine] = {}
    errors: dict[str, FlatfoldError] = {}
    try:
        for target in targets:
            try:
                engines[target] = build(target)
            except FlatfoldError as error:
                errors[target] = error
        if not engines:
            raise next(iter(errors.values()))
        left_out = tuple(Candidate(t, needs[t], reason=e.cause) for t, e in errors.items())
        choice = _choose_built(engines, list(errors), needs, progress, likely)
        choice = replace(choice, candidates=(*choice.candidates, *left_out))
        return choice, engines.pop(choice.target)
    finally:
        for engine in engines.values():
            engine.close()


def _choose_built(
    engines: Mapping[str, Engine],
    left_out: Sequence[str],
    needs: Mapping[str, int],
    progress: Progress,
    likely: Callable[[], Mapping[str, Sequence[int]]],
) -> AutoTarget:
    if len(engines) == 1:
        (only,) = engines
        others = " and ".join(left_out)
        because = f"{others} cannot run it" if others else "it is the only target here"
        return AutoTarget(only, because)
    progress(f"timing {', '.join(engines)}")
    try:
        return choose_by_time(_timings(engines, likely()), needs)
    except FlatfoldError as error:
        simplest = min(engines, key=lambda target: needs[target])
        return AutoTarget(simplest, f"it needs the fewest packages; no timing: {error.cause}")


def choose_by_time(timings: Mapping[str, Timing], needs: Mapping[str, int]) -> AutoTarget:
    """The choice between targets that were timed in the same rounds."""
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
    tied = [c for c in candidates if c.target == fastest or _is_tied(c)]
    winner = min(tied, key=lambda c: c.needs)  # the first, so the faster one, of equals
    return AutoTarget(winner.target, _reason(winner, candidates, fastest), tuple(candidates))


def _is_tied(candidate: Candidate) -> bool:
    """Whether the timings cannot tell it from the fastest."""
    assert candidate.slower is not None
    return candidate.slower.interval[0] <= 1 + SAME


def _reason(winner: Candidate, candidates: Sequence[Candidate], fastest: str) -> str:
    if winner.target != fastest:
        low, high = winner.slower.interval if winner.slower else (1.0, 1.0)
        return (
            f"it needs fewer packages than {fastest}, and no difference in time was measured: "
            f"{low:.2f} to {high:.2f} times as long"
        )
    second = next(candidate for candidate in candidates if candidate is not winner)
    assert second.slower is not None
    low, high = second.slower.interval
    if _is_tied(second):
        name = second.target
        return f"no difference from {name} was measured, and {name} needs no fewer packages"
    return f"it is {second.slower.value:.2f}x faster than {second.target} [{low:.2f}, {high:.2f}]"


def _timings(
    engines: Mapping[str, Engine], likely: Mapping[str, Sequence[int]]
) -> dict[str, Timing]:
    """All engines timed on the same random inputs, in alternating runs."""
    from flatfold.backends import random_feeds, shapes_of
    from flatfold.timing import measure

    inputs = next(iter(engines.values())).inputs
    feeds = random_feeds(inputs, shapes_of(inputs, None, None, likely))
    runs = {target: engine.bind(feeds) for target, engine in engines.items()}
    return measure(runs, budget_s=BUDGET_S * len(runs))
