"""Target "auto" takes the fastest engine; where no difference is measured, the simplest."""

from __future__ import annotations

import numpy as np
import pytest

from flatfold.auto_target import choose, choose_by_time
from flatfold.backends.onnxruntime.cpu import OrtCpu
from flatfold.errors import BuildError, InputError
from flatfold.timing import Timing
from tests.backends.small_nets import make_model

NEEDS = {"plain": 0, "quick": 1, "fancy": 2}


def timing(median, noise=0.0, seed=0):
    samples = median * (1 + noise * np.random.default_rng(seed).standard_normal(60))
    return Timing(tuple(samples))


def test_the_fastest_wins_where_timings_tell_it_apart():
    times = {
        "plain": timing(2.0, 0.02),
        "quick": timing(1.0, 0.02, 1),
        "fancy": timing(1.5, 0.02, 2),
    }
    choice = choose_by_time(times, NEEDS)
    assert choice.target == "quick"
    assert [c.target for c in choice.candidates] == ["quick", "fancy", "plain"]
    assert choice.because.startswith("it is 1.5")
    assert "x faster than fancy [" in choice.because
    assert choice.candidates[2].slower.value == pytest.approx(2.0, rel=0.02)


def test_inside_the_noise_the_one_with_fewest_packages_wins():
    times = {"fancy": timing(1.0, 0.2, 1), "plain": timing(1.0, 0.2, 2), "quick": timing(3.0)}
    choice = choose_by_time(times, NEEDS)
    assert choice.target == "plain"
    if choice.candidates[0].target == "fancy":
        assert "fewer packages than fancy, and no difference in time was measured" in choice.because
    else:
        assert "no difference from fancy was measured" in choice.because


def test_a_difference_that_nobody_notices_does_not_count():
    times = {"fancy": timing(1.0, 0.001, 1), "plain": timing(1.005, 0.001, 2)}
    assert choose_by_time(times, NEEDS).target == "plain"
    times = {"fancy": timing(1.0, 0.001, 1), "plain": timing(1.05, 0.001, 2)}
    assert choose_by_time(times, NEEDS).target == "fancy"


def test_real_engines_are_timed_and_closed():
    engines = []

    def build(target):
        levels = {"plain": "disable", "quick": "all"}
        options = {"graph_optimization": levels[target], "spinning": False, "intra_threads": 1}
        engines.append(OrtCpu().build(make_model(channels=64), options))
        return engines[-1]

    stages = []
    choice, winner = choose(["plain", "quick"], build, NEEDS, stages.append)
    assert stages == ["timing plain, quick"]
    assert {c.target for c in choice.candidates} == {"plain", "quick"}
    assert all(c.median_s > 0 and c.interval_s for c in choice.candidates)
    assert [engine for engine in engines if not engine._closed] == [winner]
    assert winner is engines[["plain", "quick"].index(choice.target)]
    winner.close()


def test_without_a_size_that_runs_nothing_is_timed_and_the_simplest_is_taken():
    def build(target):
        return OrtCpu().build(make_model(), {"intra_threads": 1})

    def likely():
        raise InputError("it runs at no size tried")

    choice, engine = choose(["quick", "plain"], build, NEEDS, likely=likely)
    engine.close()
    assert choice.target == "plain"
    assert choice.because == "it needs the fewest packages; no timing: it runs at no size tried"


def test_who_refuses_is_left_out_with_the_reason():
    def build(target):
        if target == "fancy":
            raise BuildError("it knows no such operator")
        return OrtCpu().build(make_model(), {"intra_threads": 1})

    choice, engine = choose(["fancy", "plain"], build, NEEDS)
    engine.close()
    assert choice.target == "plain" and choice.because == "fancy cannot run it"
    assert [(c.target, c.reason) for c in choice.candidates] == [
        ("fancy", "it knows no such operator")
    ]
    with pytest.raises(BuildError, match="no such operator"):
        choose(["fancy"], build, NEEDS)
