"""Programs that take simulated time on a machine with everything that makes timing hard.

Processes of one program differ by 1 % for as long as they live, and are 1 % faster for each that
was there before them. The machine slows down by 5 % over the measurement, for about every third
second it is slower by half, one run in fifty is hit by a hiccup of up to ten times its length, and
every run has a noise of 1 %.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from flatfold import timing
from flatfold.benchmark.measure.protocol import Measured, Plan, Record, Started, measure

OFFSET, ORDER, DRIFT, HICCUPS, NOISE = 0.01, 0.01, 0.05, 0.02, 0.01
FAST_S, SLOW_S, SLOWER = 2.0, 1.0, 1.5  # how long a speed lasts, on average, and what it costs


class Machine:
    """Its clock moves when a program runs."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.now = 0.0
        self.slow, self.until = False, 0.0
        self.programs = 0  # there are now

    def launcher(self, seconds: float) -> Callable[[], Program]:
        return lambda: Program(self, seconds)

    def run(self, seconds: float) -> float:
        while self.now >= self.until:
            self.slow = not self.slow
            self.until += self.rng.exponential(SLOW_S if self.slow else FAST_S)
        seconds *= SLOWER if self.slow else 1.0
        taken = seconds * (1 + DRIFT * self.now / 60) * np.exp(NOISE * self.rng.standard_normal())
        if self.rng.random() < HICCUPS:
            taken *= self.rng.uniform(1, 10)
        self.now += taken
        return float(taken)


class Program:
    """One process: see `protocol.Runner`."""

    def __init__(self, machine: Machine, seconds: float) -> None:
        self.machine = machine
        offset = OFFSET * machine.rng.standard_normal() - ORDER * machine.programs
        self.seconds = seconds * np.exp(offset)
        machine.programs += 1

    def start(self) -> Started:
        return Started(0.5, self.machine.run(3 * self.seconds), "fp32")

    def warm(self, seconds: float) -> tuple[float, bool]:
        return float(np.median([self.machine.run(self.seconds) for _ in range(10)])), True

    def block(self, runs: int) -> list[float]:
        return [self.machine.run(self.seconds) for _ in range(runs)]

    def close(self) -> None:
        self.machine.programs -= 1


def simulate(seed: int, times: Mapping[str, float], plan: Plan) -> Measured:
    """The programs of these times, until the first is told from each of the others."""
    machine = Machine(seed)
    launch = {name: machine.launcher(seconds) for name, seconds in times.items()}
    first, *others = times

    def undecided(records: Mapping[str, Record]) -> set[str]:
        words = {name: word(records, first, name) for name in others}
        still = {name for name, found in words.items() if found == timing.INCONCLUSIVE}
        return still | {first} if still else still

    return measure(launch, undecided, plan, clock=lambda: machine.now)


def word(records: Mapping[str, Record], a: str, b: str, noise: float = 0.0) -> str:
    found = timing.ratio(records[a].samples, records[b].samples)
    assert found is not None
    return timing.verdict(found, noise=noise, delta=0.02)
