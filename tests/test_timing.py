"""Timing on synthetic samples and on a clock that only moves when told to."""

from __future__ import annotations

import gc
import math

import numpy as np
import pytest

from flatfold.errors import InputError
from flatfold.timing import (
    MAX_WARMUP,
    MIN_ROUNDS,
    Timing,
    interleaved_ratio,
    measure,
    median_interval,
    ratio_of_pairs,
    samples_needed,
    steady,
)


class Clock:
    """Stands still except for what the runs of a test add to it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[str] = []

    def __call__(self) -> float:
        return self.now

    def spend(self, name: str, *seconds: float) -> object:
        series = iter(seconds)
        last = seconds[-1]

        def run() -> None:
            self.calls.append(name)
            self.now += next(series, last)

        return run


@pytest.mark.parametrize(("p", "n"), [(99, 459), (90, 44), (50, 7), (10, 44), (99.9, 4603)])
def test_percentile_needs_enough_samples(p: float, n: int) -> None:
    assert samples_needed(p) == n
    assert Timing(tuple(range(n - 1))).percentile(p) is None
    assert Timing(tuple(range(n))).percentile(p) == math.ceil(round(p * n / 100, 9)) - 1


@pytest.mark.parametrize("p", [0, 100, -1, float("nan")])
def test_percentile_outside_its_range(p: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 100"):
        Timing((1.0,) * 500).percentile(p)


def test_median_interval_of_known_sizes() -> None:
    # Ranks from the tables of the binomial distribution (sign test, two-sided 5 %).
    for n, low, high in [(6, 1, 6), (8, 1, 8), (9, 2, 8), (20, 6, 15), (100, 40, 61)]:
        assert median_interval(range(1, n + 1)) == (low, high)
    assert median_interval(range(5)) is None
    assert median_interval([]) is None


def test_median_interval_covers_in_95_of_100_series() -> None:
    rng = np.random.default_rng(0)
    series = rng.exponential(size=(2000, 31))
    intervals = [median_interval(list(row)) for row in series]
    covered = sum(low <= math.log(2) <= high for low, high in filter(None, intervals))
    # Exact coverage for n = 31 is 97.06 %; 4 standard deviations of 2000 draws are 1.5 points.
    assert abs(covered / 2000 - 0.9706) < 0.0152


def test_median_interval_of_very_many_samples() -> None:
    low, high = median_interval(range(20_001)) or (0, 0)
    assert (low, high) == (9_861, 10_139)  # 10000 -+ (1.95996 * sqrt(20001) / 2 + ...)


def test_ratio_pairs_rounds_so_drift_cancels() -> None:
    drift = np.linspace(1, 3, 40)
    jitter = 1 + 0.01 * np.random.default_rng(3).standard_normal(40)
    a, b = Timing(tuple(drift * 2 * jitter)), Timing(tuple(drift))
    found = interleaved_ratio(a, b)
    low, high = found.interval
    assert low < 2 < high and high - low < 0.02
    assert low <= found.value <= high and found.processes == 40
    assert interleaved_ratio(a, b) == found
    assert interleaved_ratio(a, b, seed=1).interval != found.interval


def test_ratio_of_equal_timings_is_one() -> None:
    timing = Timing(tuple(np.random.default_rng(0).random(20) + 1))
    assert interleaved_ratio(timing, timing).value == 1
    assert interleaved_ratio(timing, timing).interval == (1, 1)


def test_what_depends_on_the_order_in_a_round_cancels() -> None:
    first, second = (1.1, 1.0) * 10, (1.0, 1.1) * 10  # the first of a round takes a tenth longer
    found = interleaved_ratio(Timing(first), Timing(second))
    assert (found.value, *found.interval) == pytest.approx((1, 1, 1))


def test_the_interval_of_a_ratio_covers_the_truth() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        a, b = (Timing(tuple(np.exp(0.05 * rng.standard_normal(20)))) for _ in range(2))
        low, high = interleaved_ratio(a, b).interval
        covered += low <= 1 <= high
    assert covered >= 180  # of 190 expected; 3 standard deviations are 9


def test_the_interval_of_several_pairs_covers_what_engines_differ_by() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(200):
        pairs = []
        for engine in 0.05 * rng.standard_normal(5):
            a, b = np.exp(0.01 * rng.standard_normal((2, 20)))
            pairs.append((Timing(tuple(a * np.exp(engine))), Timing(tuple(b))))
        low, high = ratio_of_pairs(pairs).interval
        covered += low <= 1 <= high
    assert covered >= 180  # of 190 expected; 3 standard deviations are 9
    assert ratio_of_pairs(pairs[:2]) is None


def test_ratio_of_few_rounds_is_refused() -> None:
    with pytest.raises(InputError, match="at least 6 rounds, found 4"):
        interleaved_ratio(Timing((1,) * 4), Timing((1,) * 4))


def test_ratio_refuses_unpaired_rounds() -> None:
    with pytest.raises(InputError, match="found 3 and 2 samples"):
        interleaved_ratio(Timing((1, 2, 3)), Timing((1, 2)))


def test_steady_compares_two_windows() -> None:
    assert not steady([1.0] * 9)
    assert steady([1.0] * 10)
    assert steady([9.0, 1.0, 1.0, 1.0, 1.0, 1.01, 1.01, 1.01, 1.01, 9.0])
    assert not steady([1.1] * 5 + [1.0] * 5)


def test_rounds_alternate_and_warm_up_is_kept_apart() -> None:
    clock = Clock()
    slow_start = [5.0, 3.0, 2.0, 2.0, 2.0]
    timings = measure(
        {"a": clock.spend("a", *slow_start, 1.0), "b": clock.spend("b", 4.0)},
        rounds=12,
        budget_s=1e9,
        threads=3,
        clock=clock,
    )
    warmup = len(timings["a"].warmup)
    assert timings["a"].warmup[:6] == (*slow_start, 1.0)
    assert timings["a"].samples == (1.0,) * 12
    assert timings["b"].samples == (4.0,) * 12
    assert warmup == 13  # the last window but one has its median in the fast rounds
    assert clock.calls[2 * warmup :] == ["a", "b", "b", "a"] * 6
    assert interleaved_ratio(timings["a"], timings["b"]).value == 0.25


def test_environment_goes_on_record() -> None:
    clock = Clock()
    environment = measure({"a": clock.spend("a", 1.0)}, threads=3, clock=clock)["a"].environment
    assert environment["threads"] == 3
    assert environment["cores"] >= 1
    assert environment["processor"]
    assert len(environment["load_before"]) == len(environment["load_after"]) == 3
    assert environment["versions"]["numpy"] == np.__version__


def test_warm_up_that_never_settles_is_bounded() -> None:
    clock = Clock()
    growing = [1.1**k for k in range(400)]
    timing = measure({"a": clock.spend("a", *growing)}, rounds=8, budget_s=1e60, clock=clock)["a"]
    assert len(timing.warmup) == MAX_WARMUP
    assert len(timing.samples) == 8


def test_the_budget_ends_the_rounds_but_not_before_the_minimum() -> None:
    clock = Clock()
    spent = measure({"a": clock.spend("a", 1.0)}, rounds=1000, budget_s=50, clock=clock)["a"]
    assert len(spent.warmup) == 10 and len(spent.samples) == 42
    spent = measure({"a": clock.spend("a", 1.0)}, rounds=1000, budget_s=0, clock=clock)["a"]
    assert len(spent.warmup) == 1 and len(spent.samples) == MIN_ROUNDS


def test_an_odd_number_of_rounds_becomes_even() -> None:
    clock = Clock()
    timing = measure({"a": clock.spend("a", 1.0)}, rounds=13, budget_s=1e9, clock=clock)["a"]
    assert len(timing.samples) == 14


def test_collection_is_off_while_measuring_and_on_again_after_an_error() -> None:
    def fail() -> None:
        assert not gc.isenabled()
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        measure({"a": fail})
    assert gc.isenabled()


def test_nothing_to_measure() -> None:
    with pytest.raises(InputError, match="at least one run"):
        measure({})
