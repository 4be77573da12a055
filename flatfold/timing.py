"""Timing: runs measured in turns, and estimates of times and of their ratios.

An `Estimate` is a number with its 95 % interval. One statistic, `ratio`, compares two programs
everywhere: blocks of runs that ran one after the other are compared with each other, each round is
averaged with the next, which has the opposite order, and a bootstrap over the rounds gives the
interval. `flatfold compare` measures its rounds in fresh processes (`benchmark.measure.protocol`).
Target "auto" and `flatfold compile` measure theirs in this process, a run of each in a round:

    times = measure({"before": a.bind(feeds), "after": b.bind(feeds)})
    interleaved_ratio(times["after"], times["before"])

Two ONNX Runtime sessions whose threads spin take cores from each other: build engines that are
timed in one process with `spinning=False`. Each run finds the caches as the one before left them,
so the times are those of alternating use.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

from flatfold.errors import InputError
from flatfold.system.host import cores, load_average, processor, versions

LEVEL = 0.95  # of every interval
RESAMPLES = 2000  # of a bootstrap
NORMAL = 1.959964  # the 97.5 % quantile of the normal distribution
STUDENT = {2: 4.303, 3: 3.182, 4: 2.776}  # that of Student's t where the series below is too short
FEWEST = 3  # processes, or pairs of rounds, below which it is not known how they differ

FASTER, SLOWER, SAME, INCONCLUSIVE = "faster", "slower", "same", "inconclusive"

WINDOW = 5  # rounds on each side when asking whether the warm-up has become steady
STEADY = 0.02  # relative change of the running median that counts as steady
MAX_WARMUP = 50  # rounds
WARMUP_SHARE = 0.3  # of the budget
MIN_ROUNDS = 8  # fewer give neither a median interval nor a balanced order
PACKAGES = ("numpy", "onnxruntime")

Samples = Sequence[Sequence[Sequence[float]]]  # seconds by process or round, block and run
Matrix = npt.NDArray[np.float64]
Run = Callable[[], object]


@dataclass(frozen=True)
class Estimate:
    """A positive number with its 95 % interval.

    It is computed from `processes` processes, or rounds in one process, of `blocks` blocks each.
    """

    value: float
    interval: tuple[float, float]
    processes: int
    blocks: int

    def to_dict(self) -> dict[str, Any]:
        """The number and its interval, as JSON values."""
        return {"value": self.value, "interval": self.interval}

    @property
    def deviation(self) -> float:
        """The largest factor, minus 1, by which the interval differs from 1."""
        return math.exp(max(abs(math.log(bound)) for bound in self.interval)) - 1


def ratio(a: Samples, b: Samples, *, seed: int = 0) -> Estimate | None:
    """How many times the time of `b` the program `a` takes: the median ratio of paired blocks.

    None below six rounds that have blocks of both. Rounds must alternate in their order.
    """
    differences = []
    for mine, other in zip(a, b, strict=False):
        count = min(len(mine), len(other))
        differences.append(_logs(mine[:count]) - _logs(other[:count]))
    estimate = _estimate([*_averaged_pairs(differences)], seed)
    return None if estimate is None else replace(estimate, processes=2 * estimate.processes)


def level(samples: Samples, *, seed: int = 0) -> Estimate | None:
    """Seconds of a run: the median of the medians of the blocks; None below three processes."""
    return _estimate([_logs(process) for process in samples if process], seed)


def verdict(ratio: Estimate, *, noise: float, delta: float) -> str:
    """Whether the first of two programs is faster, slower, the same, or none of them surely.

    Same: the whole interval is within a factor of 1 + `delta`. Faster or slower: the interval
    excludes 1, and the ratio is further from 1 than `delta` and than `noise`, the difference of two
    processes of the same program. Else inconclusive.
    """
    low, high = ratio.interval
    if 1 / (1 + delta) <= low and high <= 1 + delta:
        return SAME
    if low <= 1 <= high or abs(math.log(ratio.value)) <= math.log1p(max(noise, delta)):
        return INCONCLUSIVE
    return FASTER if ratio.value < 1 else SLOWER


def quotient(a: Estimate, b: Estimate) -> Estimate:
    """a / b of two estimates that share no sample.

    The distances to the bounds add like independent errors (MOVER: Zou and Donner 2008).
    """
    (value, low, high), (other, lowest, highest) = (
        [math.log(number) for number in (e.value, *e.interval)] for e in (a, b)
    )
    below = math.hypot(value - low, highest - other)
    above = math.hypot(high - value, other - lowest)
    centre = value - other
    return Estimate(
        math.exp(centre),
        (math.exp(centre - below), math.exp(centre + above)),
        min(a.processes, b.processes),
        min(a.blocks, b.blocks),
    )


def drift(samples: Samples) -> float:
    """The time of the later half of the processes relative to the earlier half, minus 1."""
    medians = [float(np.median(_logs(process))) for process in samples if process]
    half = len(medians) // 2
    if half == 0:
        return 0.0
    return math.expm1(float(np.median(medians[-half:]) - np.median(medians[:half])))


def _averaged_pairs(rounds: Sequence[Matrix]) -> Iterator[Matrix]:
    """The mean of each round and the next, which has the opposite order, block by block."""
    for first, second in zip(rounds[::2], rounds[1::2], strict=False):
        count = min(len(first), len(second))
        if count:
            yield (first[:count] + second[:count]) / 2


def _logs(process: Sequence[Sequence[float]]) -> Matrix:
    """The logarithm of the median of each block."""
    return np.log([float(np.median(block)) for block in process])


def _estimate(processes: Sequence[Matrix], seed: int) -> Estimate | None:
    """exp of the median of logarithms, with a bootstrap over processes and their blocks.

    Few processes give too narrow a bootstrap interval: it is widened as Student's t is.
    """
    if len(processes) < FEWEST:
        return None
    blocks = min(len(process) for process in processes)
    values = np.stack([process[:blocks] for process in processes])
    count, value = len(values), float(np.median(values))
    generator = np.random.default_rng(seed)
    which = generator.integers(0, count, (RESAMPLES, count))
    within = generator.integers(0, blocks, (RESAMPLES, count, blocks))
    medians = np.median(values[which[:, :, None], within], axis=(1, 2))
    low, high = (float(bound) for bound in np.quantile(medians, [0.025, 0.975]))
    wider = _student(count - 1) / NORMAL * math.sqrt(count / (count - 1))
    interval = value - wider * max(value - low, 0.0), value + wider * max(high - value, 0.0)
    return Estimate(math.exp(value), (math.exp(interval[0]), math.exp(interval[1])), count, blocks)


def _student(freedom: int) -> float:
    """The 97.5 % quantile of Student's t (Cornish and Fisher's series)."""
    if freedom in STUDENT:
        return STUDENT[freedom]
    z = NORMAL
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / freedom + second / freedom**2 + third / freedom**3


@dataclass(frozen=True)
class Timing:
    """Wall-clock seconds of one run, one sample per round; all runs measured share the rounds.

    `warmup` holds the samples before, the first call first; no statistic uses them.
    """

    samples: tuple[float, ...]
    warmup: tuple[float, ...] = ()
    environment: Mapping[str, Any] = field(default_factory=dict)

    @property
    def median(self) -> float:
        return median(self.samples)

    @property
    def by_round(self) -> Samples:
        """The samples as `ratio` expects them: rounds of one block of one run."""
        return [[[sample]] for sample in self.samples]

    @property
    def interval(self) -> tuple[float, float] | None:
        """Of the median, 95 %, by order statistics. None below 6 samples."""
        return median_interval(self.samples)

    def percentile(self, p: float) -> float | None:
        """The p-th percentile, 0 < p < 100; None below 44 samples for p90, 459 for p99."""
        return percentile(self.samples, p)


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
    and always after an even number. `threads` is only recorded; None means each run's default.
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


def interleaved_ratio(a: Timing, b: Timing, *, seed: int = 0) -> Estimate:
    """How many times the time of `b` the run `a` takes: the `ratio` of rounds of one run each.

    Both must come from one call of `measure`. Raises InputError otherwise, and for fewer than six
    rounds.
    """
    if len(a.samples) != len(b.samples):
        raise InputError(
            f"expected two timings of the same rounds, found {len(a.samples)} and "
            f"{len(b.samples)} samples",
            hint="time both in one call of measure",
        )
    estimate = ratio(a.by_round, b.by_round, seed=seed)
    if estimate is None:
        raise InputError(f"expected at least {2 * FEWEST} rounds, found {len(a.samples)}")
    return estimate


def ratio_of_pairs(pairs: Sequence[tuple[Timing, Timing]], *, seed: int = 0) -> Estimate | None:
    """The ratio of several pairs of engines, each pair timed in one call of `measure`.

    Two engines of one graph differ by where their weights lie in memory, which no number of rounds
    shows: the interval is that of the pairs. None below three of them.
    """
    series = [
        np.concatenate([*_averaged_pairs([_logs(x) - _logs(y) for x, y in rounds])])
        for rounds in (zip(a.by_round, b.by_round, strict=True) for a, b in pairs)
    ]
    return _estimate(series, seed)


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


def median_interval(samples: Sequence[float]) -> tuple[float, float] | None:
    """The narrowest symmetric pair of order statistics that covers the median with 95 %.

    The number of samples below the median is binomial(n, 1/2), whatever the distribution. None
    below 6 samples: there even the extremes cover it with less.
    """
    n = len(samples)
    log_term, tail, k = -n * math.log(2), 0.0, 0
    # tail = P(at most k - 1 samples below the median); logarithms, as 2**-n underflows.
    while tail + math.exp(log_term) <= (1 - LEVEL) / 2:
        tail += math.exp(log_term)
        log_term += math.log((n - k) / (k + 1))
        k += 1
    if k == 0:
        return None
    ordered = sorted(samples)
    return ordered[k - 1], ordered[n - k]


def percentile(samples: Sequence[float], p: float) -> float | None:
    """The smallest sample that at least p % of the samples do not exceed; None if n is too small.

    n is enough when, with probability 99 %, at least one sample lies beyond the percentile.
    """
    if not 0 < p < 100:
        raise ValueError(f"a percentile is between 0 and 100, both excluded; found {p}")
    if len(samples) < samples_needed(p):
        return None
    # The tolerance undoes the rounding of p / 100: 0.29 * 100 is 28.999...
    rank = math.ceil(p / 100 * len(samples) - 1e-9)
    return sorted(samples)[max(rank, 1) - 1]


def samples_needed(p: float) -> int:
    """n >= ln 0.01 / ln q, for the share q of samples on the larger side of the percentile p."""
    share = max(p, 100 - p) / 100
    return math.ceil(math.log(0.01) / math.log(share))
