"""One way to time every engine: interleaved, so that what disturbs one disturbs all.

    measure({"before": a.bind(feeds), "after": b.bind(feeds)})

A drift or a hiccup of the machine hits all runs of a round alike, which is why `ratio` compares
round by round. Two ONNX Runtime sessions whose thread pools spin take cores from each other: build
engines that are timed in one process with `spinning=False`. Each run also finds the caches as the
one before left them, so the numbers are those of alternating use.
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

LEVEL = 0.95
MEDIAN_RESAMPLES = 2000


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


def bootstrap_median(values: npt.NDArray[Any], *, seed: int) -> tuple[float, float]:
    """The 95 % percentile-bootstrap interval of the median; the same for the same seed."""
    generator = np.random.default_rng(seed)
    medians = [
        float(np.median(values[generator.integers(0, len(values), len(values))]))
        for _ in range(MEDIAN_RESAMPLES)
    ]
    low, high = np.quantile(medians, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


RESAMPLES = 2000
NORMAL = 1.959964  # the 97.5 % quantile
STUDENT = {2: 4.303, 3: 3.182, 4: 2.776}  # where the series below is too short
FEWEST = 3  # processes, or rounds there and back, below which it is not known how they differ

FASTER, SLOWER, SAME, INCONCLUSIVE = "faster", "slower", "same", "inconclusive"

Samples = Sequence[Sequence[Sequence[float]]]
Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A positive number with its 95 % interval; the processes it rests on, and blocks of each."""

    value: float
    interval: tuple[float, float]
    processes: int
    blocks: int

    @property
    def deviation(self) -> float:
        """How far from 1 its interval reaches, as a factor less 1."""
        return math.exp(max(abs(math.log(bound)) for bound in self.interval)) - 1


def level(samples: Samples, *, seed: int = 0) -> Estimate | None:
    """The median of the medians of the blocks; None below three processes."""
    return _estimate([_logs(process) for process in samples if process], seed)


def ratio(a: Samples, b: Samples, *, seed: int = 0) -> Estimate | None:
    """How many times as long `a` takes as `b`: the median ratio of blocks run side by side.

    None where fewer than three rounds there and back were run side by side.
    """
    differences = []
    for mine, other in zip(a, b, strict=False):
        count = min(len(mine), len(other))
        differences.append(_logs(mine[:count]) - _logs(other[:count]))
    found = _estimate([*_there_and_back(differences)], seed)
    return None if found is None else replace(found, processes=2 * found.processes)


def verdict(found: Estimate, *, noise: float, delta: float) -> str:
    """What a ratio says of the first of two: faster, slower, same, or inconclusive.

    Same: the whole interval is within a factor of 1 + `delta`. Faster or slower: the interval
    leaves 1 out, and the ratio is further from it than `delta` and than the `noise`, which is what
    two processes of the same program were found to differ by.
    """
    low, high = found.interval
    if 1 / (1 + delta) <= low and high <= 1 + delta:
        return SAME
    if low <= 1 <= high or abs(math.log(found.value)) <= math.log1p(max(noise, delta)):
        return INCONCLUSIVE
    return FASTER if found.value < 1 else SLOWER


def quotient(a: Estimate, b: Estimate) -> Estimate:
    """a / b of two that share no sample: the distances to the bounds add like errors (MOVER)."""
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
    """By what factor, less 1, the later half of the processes took longer than the earlier one."""
    medians = [float(np.median(_logs(process))) for process in samples if process]
    half = len(medians) // 2
    if half == 0:
        return 0.0
    return math.expm1(float(np.median(medians[-half:]) - np.median(medians[:half])))


def _there_and_back(rounds: Sequence[Matrix]) -> Iterator[Matrix]:
    """The mean of each round and of the one in the opposite order, block by block."""
    for there, back in zip(rounds[::2], rounds[1::2], strict=False):
        count = min(len(there), len(back))
        if count:
            yield (there[:count] + back[:count]) / 2


def _logs(process: Sequence[Sequence[float]]) -> Matrix:
    """The logarithm of the median of each block."""
    return np.log([float(np.median(block)) for block in process])


def _estimate(processes: Sequence[Matrix], seed: int) -> Estimate | None:
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
        return median_interval(self.samples)

    def percentile(self, p: float) -> float | None:
        """The p-th percentile (0 < p < 100), or None when there are too few samples to tell.

        Enough is when 99 % of all series of this length hold a sample beyond it: 44 for p90, 459
        for p99.
        """
        return percentile(self.samples, p)


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


def interleaved_ratio(a: Timing, b: Timing, *, seed: int = 0) -> Ratio:
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
    interval = bootstrap_median(ratios, seed=seed)
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
