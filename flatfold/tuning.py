"""Measured on this machine: no engine is slower than the file that came in, and faster ones.

The cost model estimates which exact form of a graph is fastest. `Tuner.check` times the form that
it chose beside the graph as it came, on the engine that both are built for. If it is slower, groups
of changes are taken back (all those of a rewrite, those that replace the same operators, those of
one size), whichever gains most first, until it is not; the last resort is the graph as it came.

`Tuner.search` also tries forms that other costs lead to and other options of the engine, for as
many seconds as it is given, and keeps what is surely faster.

What is compared runs in turns in one process, and a difference counts only if it is found twice,
the second time with new engines.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from flatfold.errors import FlatfoldError, InputError
from flatfold.system.progress import Progress, silent

if TYPE_CHECKING:
    import onnx_ir as ir

    from flatfold.backends import Backend, Engine
    from flatfold.backends.tensors import Array
    from flatfold.passes import Remark
    from flatfold.timing import Estimate, Timing

SAME = 0.01  # a difference in time that nobody notices, however sure it is
LEAST_S = 5e-6  # nor is a shorter one noticed: a call takes as long
CHECK_S = 0.5  # of timing for each engine, the first time
TAKE_BACK_S = 30.0  # for finding what to take back, where something has to be
MOST_S = 2.0  # for one run, of which some thirty are needed
MOST_ROUNDS = 1000
MOST_AT_ONCE = 4  # engines beside the best so far, which all hold their weights in memory

Change = tuple[str, str]  # the name of a rewrite, and of the node that the change started at


@dataclass(frozen=True)
class Variant:
    """One way to build an engine; the default is the one that is estimated to be fastest.

    `costs`: the name of the costs that decide, "" for those of the target. `without`: rewrites that
    are left out. `taken_back`: changes that are not made. `given`: the graph as it came, whatever
    the rest says. `engine_options`: options of the engine besides those that were asked for.
    """

    costs: str = ""
    without: frozenset[str] = frozenset()
    taken_back: frozenset[Change] = frozenset()
    given: bool = False
    engine_options: tuple[tuple[str, object], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return {
            "costs": self.costs,
            "without": sorted(self.without),
            "taken_back": sorted(map(list, self.taken_back)),
            "given": self.given,
            "engine_options": dict(self.engine_options),
        }


ESTIMATED, GIVEN = Variant(), Variant(given=True)


@dataclass(frozen=True)
class Tried:
    """A variant that was timed: what was changed, and how many times the time of the best so far
    it takes."""

    change: str
    ratio: Estimate
    kept: bool

    def to_dict(self) -> dict[str, Any]:
        return {"change": self.change, "ratio": self.ratio.to_dict(), "kept": self.kept}


@dataclass(frozen=True)
class Tuned:
    """The variant to build and why. `reason` is "" where the estimate was only confirmed.

    `speed` is the time of the graph as it came over that of the variant, where it was searched for.
    """

    variant: Variant = ESTIMATED
    reason: str = ""
    speed: Estimate | None = None
    tried: tuple[Tried, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON values. Without times where nothing was decided by them, so that two builds of the
        same engine have the same bytes."""
        return {
            "variant": self.variant.to_dict(),
            "reason": self.reason,
            "faster": None if self.speed is None else self.speed.to_dict(),
            "tried": [tried.to_dict() for tried in self.tried],
        }


@dataclass(frozen=True)
class Candidate:
    """A variant with its graph, and the remarks of rewriting to it; `change` says it in words."""

    variant: Variant
    change: str
    graph: ir.Model
    remarks: Sequence[Remark] = ()

    @property
    def nodes(self) -> int:
        return sum(1 for _ in self.graph.graph)


Write = Callable[[Variant], tuple["ir.Model", Sequence["Remark"]]]
Times = Callable[[Sequence[Candidate], float], Sequence["Timing"]]


@dataclass
class Tuner:
    """Chooses between variants by time.

    `write` rewrites the graph as a variant says; `times` builds an engine for each of several
    candidates and times them in turns, for so many seconds in all. `options` are the values to try
    of options of the engine.
    """

    write: Write
    times: Times
    given: ir.Model
    options: Mapping[str, Sequence[object]] = field(default_factory=dict)
    progress: Progress = silent
    clock: Callable[[], float] = time.perf_counter

    def __post_init__(self) -> None:
        self._tried: list[Tried] = []
        self._seen: set[tuple[str, tuple[tuple[str, object], ...]]] = set()

    def check(self, estimated: Candidate) -> Tuned:
        """`estimated`, or where it is slower than the graph as it came what is not."""
        given = Candidate(GIVEN, "the graph as it came", self.given)
        if self._ratio_if_slower(estimated, given) is None:
            return Tuned()
        self.progress("taking back what is slower")
        until = self.clock() + TAKE_BACK_S
        best = self._climb(
            estimated, until, lambda c: self._ratio_if_slower(c, given) is None, _smaller
        )
        return self._not_slower(best, given, "slower than the graph as it came")

    def beside(self, typed: Candidate, precision: str) -> Tuned:
        """`typed`, in the precision that was asked for; `reason` says how much slower it is than
        `given`, the same graph in float32."""
        slower = self._ratio_if_slower(typed, Candidate(ESTIMATED, "fp32", self.given))
        if slower is None:
            return Tuned(reason=f"{precision} is not slower than fp32")
        low, high = slower.interval
        return Tuned(
            reason=f"{precision}, as asked for, takes {slower.value:.2f} times the time of fp32 "
            f"[{low:.2f}, {high:.2f}]"
        )

    def search(self, estimated: Candidate, seconds: float) -> Tuned:
        """The fastest variant that is found in so many seconds."""
        given = Candidate(GIVEN, "the graph as it came", self.given)
        until = self.clock() + seconds
        best = self._climb(estimated, until, lambda _: False, self._others)
        return self._not_slower(best, given, f"tuned for {seconds:g} s")

    def _not_slower(self, best: Candidate, given: Candidate, reason: str) -> Tuned:
        """`best`, or the graph as it came if that is faster."""
        slower = self._ratio_if_slower(best, given)
        if slower is not None:
            self._tried.append(Tried(given.change, _inverse(slower), kept=True))
            best = given
        speed = None if best is given else self._ratio((given, best), 2 * CHECK_S)
        return Tuned(best.variant, reason, speed, tuple(self._tried))

    def _climb(
        self,
        best: Candidate,
        until: float,
        enough: Callable[[Candidate], bool],
        neighbours: Callable[[Candidate], Iterator[tuple[Variant, str]]],
    ) -> Candidate:
        """Go from the best so far to the fastest of its neighbours while one is faster."""
        self._is_new(best)
        while True:
            faster = self._fastest(best, until, neighbours(best))
            if faster is None:
                return best
            best = faster
            if enough(best) or self.clock() > until:
                return best

    def _fastest(
        self, best: Candidate, until: float, neighbours: Iterator[tuple[Variant, str]]
    ) -> Candidate | None:
        """The fastest of the neighbours, if it is surely faster than `best`, twice.

        Of those that are as fast, the one with the fewest nodes, so the fewest changes taken back.
        """
        found: list[tuple[Candidate, Estimate]] = []
        candidates = self._written(neighbours, until)
        while group := list(islice(candidates, MOST_AT_ONCE)):
            try:
                timings = self.times((best, *group), CHECK_S * (1 + len(group)))
            except FlatfoldError:
                continue  # the engine refuses one of them
            for candidate, timing in zip(group, timings[1:], strict=True):
                ratio = _ratio_of(timing, timings[0])
                self._tried.append(Tried(candidate.change, ratio, kept=False))
                if ratio.interval[1] < 1 - SAME:
                    found.append((candidate, ratio))
        if not found:
            return None
        least = min(ratio.value for _, ratio in found)
        tied = [c for c, ratio in found if ratio.interval[0] <= least * (1 + SAME)]
        winner = min(tied, key=lambda candidate: candidate.nodes)
        ratio = self._ratio((winner, best), 4 * CHECK_S)
        if ratio.interval[1] >= 1:
            return None
        self._tried.append(Tried(winner.change, ratio, kept=True))
        return winner

    def _written(
        self, neighbours: Iterator[tuple[Variant, str]], until: float
    ) -> Iterator[Candidate]:
        """The candidates of variants that lead to a graph that was not tried before."""
        for variant, change in neighbours:
            if self.clock() > until:
                return
            self.progress(f"trying {change}")
            try:
                candidate = Candidate(variant, change, *self.write(variant))
            except FlatfoldError:
                continue  # a rewrite may need another one before it
            if self._is_new(candidate):
                yield candidate

    def _is_new(self, candidate: Candidate) -> bool:
        from flatfold.proof import fingerprint

        key = fingerprint(candidate.graph), candidate.variant.engine_options
        new = key not in self._seen
        self._seen.add(key)
        return new

    def _others(self, best: Candidate) -> Iterator[tuple[Variant, str]]:
        """Other costs, other options of the engine, and less rewriting."""
        from flatfold.passes.cost.profiles import EXTREMES, PROFILES

        variant = best.variant
        for name in (*PROFILES, *EXTREMES):
            yield replace(variant, costs=name), f"the costs of {name}"
        chosen = dict(variant.engine_options)
        for name, values in self.options.items():
            for value in values:
                options = tuple(sorted({**chosen, name: value}.items()))
                yield replace(variant, engine_options=options), f"{name}={value}"
        yield from _smaller(best)
        for change in sorted(_changes(best)):
            yield _taking_back(variant, {change}), f"{change[0]} at {change[1]} taken back"

    def _ratio_if_slower(self, candidate: Candidate, given: Candidate) -> Estimate | None:
        """How many times the time of `given` it takes, if that is surely more, twice."""
        for budget in (2 * CHECK_S, 4 * CHECK_S):
            timings = self.times((given, candidate), budget)
            ratio = _ratio_of(timings[1], timings[0])
            longer = timings[1].median - timings[0].median
            if ratio.interval[0] <= 1 + SAME or longer < LEAST_S:
                return None
        return ratio

    def _ratio(self, pair: tuple[Candidate, Candidate], budget: float) -> Estimate:
        first, second = self.times(pair, budget)
        return _ratio_of(first, second)


@dataclass
class Stopwatch:
    """Times candidates on engines of `backend` with `options`, on the arrays of `feeds`."""

    backend: Backend
    options: Mapping[str, object]
    feeds: Mapping[str, Array]
    clock: Callable[[], float] = time.perf_counter

    def times(self, candidates: Sequence[Candidate], budget_s: float) -> Sequence[Timing]:
        """The timings of all candidates, which run in turns for about `budget_s` seconds.

        Raises InputError where one run takes longer than MOST_S, and what building raises.
        """
        from flatfold.timing import measure

        with ExitStack() as stack:
            runs: dict[str, Callable[[], object]] = {}
            for index, candidate in enumerate(candidates):
                engine = stack.enter_context(self._engine(candidate))
                runs[str(index)] = engine.bind(self.feeds)
                self._require_short(runs[str(index)])
            timings = measure(runs, rounds=MOST_ROUNDS, budget_s=budget_s, clock=self.clock)
        return list(timings.values())

    def _engine(self, candidate: Candidate) -> Engine:
        chosen = dict(candidate.variant.engine_options)
        options = {**self.options, **chosen, **self.backend.timing_options}
        return self.backend.build(candidate.graph, options)

    def _require_short(self, run: Callable[[], object]) -> None:
        start = time.perf_counter()
        run()
        seconds = time.perf_counter() - start
        if seconds > MOST_S:
            raise InputError(
                f"one run takes {seconds:.1f} s, and at most {MOST_S:g} s are timed",
                hint="give a smaller input to time it with (--shape)",
            )


def _smaller(best: Candidate) -> Iterator[tuple[Variant, str]]:
    """Variants with fewer changes: without a rewrite, without those of one kind, or of one size."""
    variant, applied = best.variant, [r for r in best.remarks if r.applied]
    names = dict.fromkeys(remark.rewrite for remark in applied)
    for name in names:
        yield replace(variant, without=variant.without | {name}), f"{name} taken back"
    yield replace(variant, without=variant.without | names.keys()), "all rewrites taken back"
    groups: dict[str, set[Change]] = defaultdict(set)
    for remark in applied:
        kind = f"{remark.rewrite} ({remark.reason.partition(';')[0]})"
        for group in (kind, f"{kind} of {remark.before.macs:,} multiply-accumulates"):
            if remark.node:
                groups[group].add((remark.rewrite, remark.node))
    for group, changes in groups.items():
        many = "" if len(changes) == 1 else f" x{len(changes)}"
        yield _taking_back(variant, changes), f"{group}{many} taken back"


def _changes(best: Candidate) -> set[Change]:
    return {(r.rewrite, r.node) for r in best.remarks if r.applied and r.node}


def _taking_back(variant: Variant, changes: set[Change]) -> Variant:
    return replace(variant, taken_back=variant.taken_back | changes)


def _ratio_of(a: Timing, b: Timing) -> Estimate:
    from flatfold.timing import interleaved_ratio

    return interleaved_ratio(a, b)


def _inverse(ratio: Estimate) -> Estimate:
    low, high = ratio.interval
    return replace(ratio, value=1 / ratio.value, interval=(1 / high, 1 / low))


def described(record: Mapping[str, Any]) -> str:
    """`Tuned.to_dict()` in a line: why, what was kept of what was tried, and what was gained."""
    tried = record["tried"]
    kept = [each["change"] for each in tried if each["kept"]]
    parts = [record["reason"]]
    if tried:
        parts.append(f"{', '.join(kept) or 'the estimated form'}, of {len(tried)} timings")
    if (gain := record["faster"]) is not None:
        low, high = gain["interval"]
        parts.append(
            f"{gain['value']:.2f}x the speed of the model as it came [{low:.2f}, {high:.2f}]"
        )
    return "; ".join(parts)
