"""Statistics of latencies: nothing here assumes a distribution, and nothing reads a clock."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

LEVEL = 0.95
RESAMPLES = 2000


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
        for _ in range(RESAMPLES)
    ]
    low, high = np.quantile(medians, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
