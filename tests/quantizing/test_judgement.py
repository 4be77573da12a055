"""What a quantized graph is called, by what it loses on the data given and on what is held out."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flatfold.quantizing.judgement import split
from flatfold.result import Rounded, interval_of_share

GOOD = Rounded("int8", 5, 5, 0, 24, True, 30.0, 1.0)


def test_half_types_have_no_such_verdict() -> None:
    assert replace(GOOD, precision="fp16").verdict == ""


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        ({}, "quantized"),
        ({"given": False, "decibels": 1.0}, "speed only"),
        ({"decibels": 9.0}, "degraded"),
        ({"held_decibels": 9.0}, "degraded"),
        ({"lost": 0.02}, "quantized"),  # nothing was said of a drop
        ({"lost": 0.02, "max_drop": 0.01}, "degraded"),
        ({"lost": 0.01, "max_drop": 0.01}, "quantized"),
        ({"lost": -0.01, "max_drop": 0.0}, "quantized"),
    ],
)
def test_a_verdict_is_about_all_that_was_measured(change, verdict) -> None:
    assert replace(GOOD, **change).verdict == verdict


def test_it_is_said_with_both_kinds_of_data() -> None:
    rounded = replace(
        GOOD, held_runs=8, held_decibels=28.0, held_agreement=0.875, lost=0.125, max_drop=0.2
    )
    assert str(rounded) == (
        "quantized: 5 of 5 nodes in int8, 30 dB and 100.0% the same largest score [86.2%, 100.0%]"
        " in 24 runs on the data given; 28 dB and 87.5% the same largest score [52.9%, 97.8%] in 8"
        " runs that were held out; 12.50% lost of 20.00% allowed"
    )


@pytest.mark.parametrize(
    ("share", "count", "low", "high"),
    [(0.5, 10, 0.2366, 0.7634), (1.0, 24, 0.862, 1.0), (0.0, 10, 0.0, 0.2775)],
)
def test_the_interval_of_a_share(share, count, low, high) -> None:
    """Beside published values of Wilson's interval."""
    assert interval_of_share(share, count) == pytest.approx((low, high), abs=1e-4)


def test_a_quarter_of_the_runs_is_held_out() -> None:
    runs = [{"x": number} for number in range(12)]
    seen, held = split(runs)
    assert [run["x"] for run in held] == [3, 7, 11] and len(seen) == 9
    assert split(runs[:7]) == (runs[:7], [])
