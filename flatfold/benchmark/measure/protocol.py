"""The protocol: rounds of fresh processes, which take turns in an order that favours none.

A round starts every candidate in a separate process and warms each up until it is steady. Then
the blocks of runs: all candidates in that order, then all in reverse, and so on, so that of any two
each goes first as often as the other. The next round has the opposite order, which cancels what
depends on which was started first; after each two rounds the order is rotated. Only one process
works at a time. Rounds follow until every pair is decided or the budget is spent; a candidate whose
pairs are all decided is left out meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol, TypeVar

from flatfold import timing
from flatfold.errors import FlatfoldError, InputError
from flatfold.system.progress import Progress, silent

MOST_RUNS = 100  # in a block: more would only make the report larger
MORE = 8  # times the blocks of a plan in a round, at most
SETTLING_S = 0.05  # until the threads of a process are idle after a block, about

Blocks = list[list[list[float]]]
T = TypeVar("T")


@dataclass(frozen=True)
class Plan:
    """How much is measured.

    At least `rounds` rounds, then two at a time until every pair is decided, but none are begun
    after `budget_s` seconds or `most_rounds`. A round has `blocks` blocks of about `block_s`
    seconds of each candidate, and up to `MORE` times as many while they all take less than
    `round_s` together, or less than it took to start the processes: where starting is the larger
    part of a round, more blocks make its ratios more accurate for little time. A warm-up takes
    `warm_s` at most, or ten runs if they take longer. Blocks are short because machines change
    their speed for a second or two: two blocks that are compared should be over before that. Times
    within a factor of 1 + `delta` are the same.
    """

    rounds: int = 6
    most_rounds: int = 50
    blocks: int = 8
    block_s: float = 0.05
    round_s: float = 10.0
    warm_s: float = 2.0
    budget_s: float = 300.0
    delta: float = 0.02
    seed: int = 0

    @classmethod
    def of(cls, rounds: int | None, budget_s: float | None, seed: int) -> Plan:
        """A plan with the default for each argument that is None."""
        plan = cls(seed=seed) if rounds is None else cls(rounds, seed=seed)
        return plan if budget_s is None else replace(plan, budget_s=budget_s)

    def __post_init__(self) -> None:
        fewest = 2 * timing.FEWEST
        if self.rounds < fewest or self.rounds % 2 or self.blocks < 2 or self.blocks % 2:
            raise InputError(
                f"expected even numbers of rounds and blocks, of rounds at least {fewest}, "
                f"found {self.rounds} and {self.blocks}",
                hint=f"leave them out: the default is {Plan.rounds} rounds",
            )


@dataclass(frozen=True)
class Started:
    """What a fresh process reports once its engine is built and has run for the first time.

    `build_s` is None where the engine was loaded, because an earlier process had saved it.
    """

    build_s: float | None
    first_call_s: float
    precision: str
    layers: int | None = None


class Runner(Protocol):
    """One candidate in a separate process. Each call raises FlatfoldError on failure."""

    def start(self) -> Started:
        """Builds the engine and runs it once."""

    def warm(self, seconds: float) -> tuple[float, bool]:
        """The seconds of a run, and whether they are steady; ends after `seconds` or ten runs."""

    def block(self, runs: int) -> list[float]:
        """The seconds of each of `runs` runs, after one that is not counted."""

    def close(self) -> None:
        """Ends the process."""


@dataclass
class Record:
    """What was measured of one candidate.

    `samples` has an entry for each round, an empty one for a round in which it was left out. After
    a process that failed, `reason` says why and no round follows.
    """

    samples: Blocks = field(default_factory=list)
    started: list[Started] = field(default_factory=list)
    steady: bool = True
    reason: str = ""


@dataclass(frozen=True)
class Measured:
    """The records by name, how many rounds there were, and whether all pairs were decided."""

    records: dict[str, Record]
    rounds: int
    decided: bool


def measure(
    launch: Mapping[str, Callable[[], Runner]],
    undecided: Callable[[Mapping[str, Record]], Collection[str]],
    plan: Plan,
    *,
    inspect: Callable[[str, Runner], None] = lambda name, runner: None,
    progress: Progress = silent,
    clock: Callable[[], float] = time.monotonic,
) -> Measured:
    """Measures each candidate of `launch`, which starts a process of it.

    `undecided` returns the candidates that need more rounds. `inspect` is called with each runner
    of the first round, once it is built. A candidate that fails is left out of the later rounds;
    its record has the reason.
    """
    records = {name: Record() for name in launch}
    start, done, left = clock(), 0, set(launch)
    while (
        done < plan.rounds
        or done % 2
        or (left and done < plan.most_rounds and clock() - start < plan.budget_s)
    ):
        alive = [name for name in launch if name in left and not records[name].reason]
        if not alive:
            break
        turn = done // 2 % len(alive)
        alive = [*_direction([*alive[turn:], *alive[:turn]], done)]
        for record in records.values():
            if not record.reason:
                record.samples.append([])
        label = f"round {done + 1}"
        with ExitStack() as stack:
            a_round = _Round({n: launch[n] for n in alive}, records, plan, stack, clock)
            a_round.start(inspect if done == 0 else lambda name, runner: None, progress, label)
            progress(f"{label} on blocks of each in turn")
            a_round.run()
        done += 1
        if done >= plan.rounds and done % 2 == 0:
            left = set(undecided(records))
    return Measured(records, done, not left)


class _Round:
    """The candidates of one round, each in its process."""

    def __init__(
        self,
        launch: Mapping[str, Callable[[], Runner]],
        records: Mapping[str, Record],
        plan: Plan,
        stack: ExitStack,
        clock: Callable[[], float],
    ) -> None:
        self.launch, self.records, self.plan, self.stack = launch, records, plan, stack
        self.clock = clock
        self.runners: dict[str, Runner] = {}
        self.runs: dict[str, int] = {}
        self.cycle_s = 0.0  # of a block of each
        self.starting_s = 0.0

    def start(self, inspect: Callable[[str, Runner], None], progress: Progress, label: str) -> None:
        """Builds and warms up each, one after the other."""
        for name, launch in self.launch.items():
            progress(f"{label} on {name}")
            record = self.records[name]
            try:
                runner = launch()
                self.stack.callback(runner.close)
                record.started.append(self._timed(runner.start))
                inspect(name, runner)
                seconds, steady = self._timed(partial(runner.warm, self.plan.warm_s))
            except FlatfoldError as error:
                record.reason = error.cause
                continue
            record.steady = record.steady and steady
            self.runners[name] = runner
            wanted = round(self.plan.block_s / max(seconds, 1e-9))
            self.runs[name] = min(max(wanted, 1), MOST_RUNS)
            # A block has one run more, which is not counted.
            self.cycle_s += (self.runs[name] + 1) * seconds + SETTLING_S

    def run(self) -> None:
        """The blocks, in one order and the opposite one in turn."""
        order = list(self.runners)
        worth_s = max(self.plan.round_s, self.starting_s)
        wanted = round(worth_s / max(self.cycle_s, 1e-9) / 2) * 2
        for number in range(min(max(wanted, self.plan.blocks), MORE * self.plan.blocks)):
            for name in _direction(order, number):
                record = self.records[name]
                if record.reason:
                    continue
                try:
                    record.samples[-1].append(self.runners[name].block(self.runs[name]))
                except FlatfoldError as error:
                    record.reason = error.cause

    def _timed(self, do: Callable[[], T]) -> T:
        begin = self.clock()
        try:
            return do()
        finally:
            self.starting_s += self.clock() - begin


def _direction(order: Sequence[str], number: int) -> Sequence[str]:
    return order if number % 2 == 0 else order[::-1]
