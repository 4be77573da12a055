"""One way to time every engine: interleaved, so that what disturbs one disturbs all.

    measure({"before": a.bind(feeds), "after": b.bind(feeds)})

A drift or a hiccup of the machine hits all runs of a round alike, which is why `ratio` compares
round by round. Two ONNX Runtime sessions whose thread pools spin take cores from each other: build
engines that are timed in one process with `spinning=False`. Each run also finds the caches as the
one before left them, so the numbers are those of alternating use.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np

from flatfold.backends import order_statistics
from flatfold.backends.environment import cores, load_average, processor, versions
from flatfold.errors import InputError

WINDOW = 5  # rounds on each side when asking whether the warm-up has become steady
STEADY = 0.02  # relative change of the running median that counts as steady
MAX_WARMUP = 50  # rounds
WARMUP_SHARE = 0.3  # of the budget
MIN_ROUNDS = 8  # fewer give neither a median interval nor a balanced order
PACKAGES = ("numpy", "onnxruntime")

Run = Callable[[], object]


@dataclass(frozen=True)
class Timing:
    """Wall-clock seconds of one run, one sample per round; rounds are shared by all runs measured.

    `warmup` holds the samples before that, the first call first: they are in no statistic.
    """

    samples: tuple[float, ...]
    warmup: tuple[float, ...] = ()
    environment: Mapping[str, Any] = field(default_factory=dict)

    @property
    def median(self) -> float:
        return median(self.samples)

    @property
    def interval(self) -> tuple[float, float] | None:
        """Of the median, 95 %, by order statistics. None below 6 samples."""
        return order_statistics.median_interval(self.samples)

    def percentile(self, p: float) -> float | None:
        """The p-th percentile (0 < p < 100), or None when there are too few samples to tell.

        Enough is when 99 % of all series of this length hold a sample beyond it: 44 for p90, 459
        for p99.
        """
        return order_statistics.percentile(self.samples, p)


@dataclass(frozen=True)
class Ratio:
    """How many times as long one run takes as another: below 1, it is faster.

    `interval` is of `value`, 95 %; it includes 1 where the rounds cannot tell the two apart.
    """

    value: float
    interval: tuple[float, float]
    rounds: int


def measure(
    runs: Mapping[str, Run],
    *,
    rounds: int = 100,
    budget_s: float = 10.0,
    threads: int | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Timing]:
    """Times each of `runs`, once per round, in alternating order (A B, B A, ...).

    Stops after `rounds` rounds or `budget_s` seconds, whichever is first, but not before 8 rounds
    and always after an even number. `threads` only goes on record; None means each run's default.
    """
    if not runs:
        raise InputError("expected at least one run to measure, found none")
    backwards = {name: runs[name] for name in reversed(list(runs))}
    before, start = load_average(), clock()
    with _no_collection():
        warmup = _warm_up(runs, clock, start + WARMUP_SHARE * budget_s)
        samples: dict[str, list[float]] = {name: [] for name in runs}
        for done in range(0, max(rounds, MIN_ROUNDS), 2):
            if done >= MIN_ROUNDS and clock() - start > budget_s:
                break
            _round(runs, samples, clock)
            _round(backwards, samples, clock)
    environment = {
        "processor": processor(),
        "cores": cores(),
        "threads": threads,
        "load_before": before,
        "load_after": load_average(),
        "versions": versions(PACKAGES),
    }
    return {n: Timing(tuple(samples[n]), tuple(warmup[n]), environment) for n in runs}


def ratio(a: Timing, b: Timing, *, seed: int = 0) -> Ratio:
    """`a` over `b`: the median of the ratios within each round, with a bootstrapped interval.

    Both must come from one `measure`: rounds of different measurements share nothing.
    """
    if len(a.samples) != len(b.samples):
        raise InputError(
            f"expected two timings of the same rounds, found {len(a.samples)} and "
            f"{len(b.samples)} samples",
            hint="time both in one call of measure",
        )
    ratios = np.asarray(a.samples) / np.asarray(b.samples)
    interval = order_statistics.bootstrap_median(ratios, seed=seed)
    return Ratio(float(np.median(ratios)), interval, len(ratios))


def steady(samples: Sequence[float]) -> bool:
    """Whether the median of the last rounds is that of the rounds before them."""
    if len(samples) < 2 * WINDOW:
        return False
    last, previous = median(samples[-WINDOW:]), median(samples[-2 * WINDOW : -WINDOW])
    return abs(last - previous) <= STEADY * previous


def _warm_up(
    runs: Mapping[str, Run], clock: Callable[[], float], until: float
) -> dict[str, list[float]]:
    samples: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(MAX_WARMUP):
        _round(runs, samples, clock)
        if clock() > until or all(steady(series) for series in samples.values()):
            break
    return samples


def _round(
    runs: Mapping[str, Run], samples: Mapping[str, list[float]], clock: Callable[[], float]
) -> None:
    for name, run in runs.items():
        start = clock()
        run()
        samples[name].append(clock() - start)


@contextmanager
def _no_collection() -> Iterator[None]:
    """A garbage collection in one run would count as that run's time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
