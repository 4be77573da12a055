"""What a reader is told before the times are believed, and which pairs are judged."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from flatfold.benchmark.checks import notes, pairs_of
from flatfold.benchmark.measure.protocol import Plan
from flatfold.benchmark.report import ModelReport, Row
from flatfold.timing import Estimate
from tests.benchmark import made


def changed(**facts: Any) -> ModelReport:
    return dataclasses.replace(made.report().models[0], **facts)


def test_a_good_report_needs_none() -> None:
    assert notes(changed(), Plan()) == []


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        ({"noise": None}, "could not be measured"),
        ({"noise": Estimate(1.01, (0.99, 1.05), 5, 8)}, "differs from itself by up to 5.0%"),
    ],
)
def test_a_noise_floor_that_is_missing_or_high(facts: dict[str, Any], told: str) -> None:
    (note,) = notes(changed(**facts), Plan())
    assert told in note


def test_pairs_that_are_undecided_are_counted() -> None:
    pairs = [
        dataclasses.replace(pair, verdict="inconclusive") for pair in made.report().models[0].pairs
    ]
    (note,) = notes(changed(pairs=tuple(pairs[:2])), Plan())
    assert note.startswith("2 of 2 pairs are undecided after 6 rounds")


def test_drift_and_warm_ups_and_precisions() -> None:
    reference, *others = made.report().models[0].rows
    samples = [(((t,) * 20,) * 2) for t in (0.04, 0.04, 0.048, 0.048)]
    drifting = dataclasses.replace(reference, samples_s=tuple(samples), steady=False)
    half = dataclasses.replace(others[1], precision="fp16")
    found = notes(changed(rows=(drifting, half)), Plan())
    assert [note.partition(":")[0] for note in found] == [
        "the machine drifted",
        "not steady after the warm-up",
        "not all rows ran in one precision",
    ]
    assert "+20.0%" in found[0]


def names(rows: list[Row]) -> list[tuple[str, str]]:
    known = {row.name: row for row in rows}
    return [(pair.row, pair.against) for pair in pairs_of(known, None, Plan())]


def test_rows_are_compared_on_their_own_target() -> None:
    here = [made.row(name, 0.04) for name in ("training", "onnxsim", "flatfold")]
    there = [dataclasses.replace(row, target="openvino") for row in here]
    eager = dataclasses.replace(made.row("eager", 0.04), target="torch")
    assert names([*here, *there, eager]) == [
        ("onnxsim ort-cpu", "training ort-cpu"),
        ("flatfold ort-cpu", "training ort-cpu"),
        ("onnxsim openvino", "training openvino"),
        ("flatfold openvino", "training openvino"),
        ("eager torch", "training ort-cpu"),
        ("flatfold ort-cpu", "onnxsim ort-cpu"),
        ("flatfold ort-cpu", "eager torch"),
        ("flatfold openvino", "onnxsim openvino"),
        ("flatfold openvino", "eager torch"),
    ]


def test_what_is_wrong_or_failed_is_in_no_pair() -> None:
    wrong = made.row("onnxsim", 0.01, made.WRONG)
    failed = made.row("onnxslim", 0.01, reason="it crashed")
    right = [made.row("training", 0.04), made.row("flatfold", 0.02)]
    assert names([*right, wrong, failed]) == [("flatfold ort-cpu", "training ort-cpu")]
