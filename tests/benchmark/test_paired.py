"""The statistics on samples whose answer is known, and on a machine with everything against it."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from flatfold import timing
from flatfold.benchmark.measure.protocol import Plan
from flatfold.timing import Estimate
from tests.benchmark.simulated import simulate, word

SEEDS = range(20)


def process(*medians: float) -> list[list[float]]:
    """Blocks of three runs each, one of which was hit by something."""
    return [[median, median, 9 * median] for median in medians]


def test_exact_samples_give_an_exact_ratio() -> None:
    a = [process(3.0, 3.3), process(6.0, 1.5), process(0.3, 3.0)] * 2
    b = [process(2.0, 2.2), process(4.0, 1.0), process(0.2, 2.0)] * 2
    found = timing.ratio(a, b)
    assert found is not None and (found.processes, found.blocks) == (6, 2)
    assert [found.value, *found.interval] == pytest.approx([1.5, 1.5, 1.5])
    back = timing.ratio(b, a)
    assert back is not None and back.value == pytest.approx(1 / 1.5)


def test_a_process_that_failed_is_left_out_of_both() -> None:
    a = [process(3.0, 3.0)] * 9
    b = [process(1.0), process(), *[process(1.0, 1.0)] * 5, process(1.0), process(1.0)]
    found = timing.ratio(a, b)
    assert found is not None and (found.processes, found.blocks) == (6, 1)
    assert found.value == pytest.approx(3)


def test_what_depends_on_which_was_started_first_cancels() -> None:
    """By a tenth, twice as much as what is looked for, and every second round the other way."""
    first = [process(1.1, 1.1), process(1.0, 1.0)] * 3
    last = [process(1.05, 1.05), process(1.155, 1.155)] * 3
    found = timing.ratio(last, first)
    assert found is not None
    assert [found.value, *found.interval] == pytest.approx([1.05, 1.05, 1.05])


def test_fewer_than_three_processes_say_nothing() -> None:
    assert timing.level([process(1.0, 1.0)] * 2) is None
    assert timing.ratio([process(1.0)] * 6, [process(1.0)] * 5) is None


def test_the_interval_is_that_of_the_processes_however_many_blocks_there_are() -> None:
    """Blocks of one process say the same thing; a bootstrap over all of them would be sure."""
    ones = [process(*[1.0] * 40)] * 10
    shifts = np.repeat((-0.04, -0.02, 0, 0.02, 0.04), 2)
    offset = [process(*[1 + shift] * 40) for shift in shifts]
    found = timing.ratio(offset, ones)
    assert found is not None and found.value == pytest.approx(1)
    assert found.interval[0] < 0.96 and found.interval[1] > 1.04


@pytest.mark.parametrize("freedom", [2, 3, 4, 5, 7, 10, 14])
def test_student_quantiles_cover(freedom: int) -> None:
    """Against two million draws, whose quantile is known to about 1 %."""
    rng = np.random.default_rng(0)
    drawn = rng.standard_normal(500_000) / np.sqrt(rng.chisquare(freedom, 500_000) / freedom)
    assert timing._student(freedom) == pytest.approx(np.quantile(drawn, 0.975), rel=0.02)


@pytest.mark.parametrize(
    ("value", "low", "high", "noise", "expected"),
    [
        (1.1, 1.08, 1.12, 0.0, "slower"),
        (0.8, 0.78, 0.82, 0.0, "faster"),
        (1.0, 0.99, 1.01, 0.0, "same"),
        (1.01, 1.005, 1.015, 0.0, "same"),  # surely slower, by what nobody notices
        (1.0, 0.95, 1.05, 0.0, "inconclusive"),
        (1.1, 1.08, 1.12, 0.15, "inconclusive"),  # two of the same program differ by more
        (1.018, 1.001, 1.04, 0.0, "inconclusive"),
    ],
)
def test_verdicts(value: float, low: float, high: float, noise: float, expected: str) -> None:
    found = Estimate(value, (low, high), 5, 8)
    assert timing.verdict(found, noise=noise, delta=0.02) == expected
    opposite = {"slower": "faster", "faster": "slower"}
    turned = replace(found, value=1 / value, interval=(1 / high, 1 / low))
    assert timing.verdict(turned, noise=noise, delta=0.02) == opposite.get(expected, expected)


def test_a_quotient_is_less_sure_than_either() -> None:
    a, b = Estimate(1.2, (1.1, 1.3), 5, 8), Estimate(1.0, (0.9, 1.1), 5, 8)
    found = timing.quotient(a, b)
    assert found.value == pytest.approx(1.2)
    assert found.interval[0] < 1.1 and found.interval[1] > 1.3
    certain = Estimate(2.0, (2.0, 2.0), 5, 8)
    half = timing.quotient(a, certain)
    assert (half.value, *half.interval) == pytest.approx((0.6, 0.55, 0.65))


def test_drift_is_the_later_half_over_the_earlier() -> None:
    assert timing.drift([process(t) for t in (1.0, 1.0, 7.0, 1.1, 1.1)]) == pytest.approx(0.1)
    assert timing.drift([process(1.0)]) == 0


def test_identical_programs_tie_and_a_slow_one_is_found() -> None:
    ties, found = 0, 0
    for seed in SEEDS:
        done = simulate(seed, {"a": 0.025, "b": 0.025, "b again": 0.025}, Plan())
        reach = timing.ratio(done.records["b"].samples, done.records["b again"].samples)
        assert reach is not None
        ties += word(done.records, "a", "b", reach.deviation) == timing.SAME
        slow = simulate(100 + seed, {"a": 0.0275, "b": 0.025, "b again": 0.025}, Plan())
        floor = timing.ratio(slow.records["b"].samples, slow.records["b again"].samples)
        assert floor is not None
        found += word(slow.records, "a", "b", floor.deviation) == timing.SLOWER
    assert ties >= 19
    assert found >= 19


def test_the_interval_covers_the_truth() -> None:
    """Of 100 measurements of 10 rounds each, about 95; a plain bootstrap covers about 80."""
    covered = 0
    for seed in range(100):
        done = simulate(seed, {"a": 0.03, "b": 0.02}, Plan(rounds=10, most_rounds=10))
        found = timing.ratio(done.records["a"].samples, done.records["b"].samples)
        assert found is not None
        covered += found.interval[0] <= 1.5 <= found.interval[1]
    assert covered >= 90


def test_the_seed_decides() -> None:
    rng = np.random.default_rng(0)
    a, b = (np.exp(rng.standard_normal((10, 8, 3))).tolist() for _ in range(2))
    assert timing.ratio(a, b, seed=3) == timing.ratio(a, b, seed=3)
    assert timing.ratio(a, b, seed=3) != timing.ratio(a, b, seed=4)
    assert math.isfinite(timing.ratio(a, b, seed=3).deviation)  # type: ignore[union-attr]
