"""What samples of several processes say: no clock is read here, and no distribution assumed.

Samples are nested: of each process its blocks, of each block its runs. Blocks of the same number in
the same process number were run one after the other, so that their ratio is free of what disturbs
both. Processes of one program differ by a few per cent for as long as they live: the bootstrap
draws processes first, then their blocks, and its interval is widened by Student's t and
sqrt(n / (n - 1)), without which five processes would look twice as sure as they are.

Some of that is due to when a process was started: of four that do the same, the first one was 2 %
slower than the last one, again and again. Every second round starts them the other way round, so
that it cancels in the mean of the logarithms of two rounds. Ratios are taken of such means.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

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
