"""What is said of a report in words."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from flatfold.benchmark.machine import machine
from flatfold.benchmark.report import ModelReport, Pair, Report
from flatfold.benchmark.views import facts, sentences
from flatfold.timing import Estimate
from tests.benchmark import made
from tests.benchmark.made_whole import whole


def said(**facts: Any) -> sentences.Headline:
    """The headline where flatfold's row differs in these facts."""
    model = made.report().models[0]
    rows = tuple(
        dataclasses.replace(row, **facts) if row.variant == "flatfold" else row
        for row in model.rows
    )
    (found,) = sentences.headlines(dataclasses.replace(model, rows=rows))
    return found


def test_a_headline_can_stand_alone() -> None:
    found = said()
    assert found.sentence == (
        "flatfold is 2.00x faster than the training graph on ort-cpu, fp32, batch 1: "
        "0.500x the time, 95 % interval 0.500–0.500, noise floor ±0 %, outputs sampled, "
        "graph certified."
    )
    assert found.more == (
        "Compared with onnxslim ort-cpu, fp32, the fastest of the others, it is 2.00x faster: "
        "0.500x the time, 95 % interval 0.500–0.500."
    )


@pytest.mark.parametrize(
    ("facts", "verdict", "told"),
    [
        ({"equivalence": made.WRONG}, "WRONG", "its outputs are not those"),
        ({"reason": "it crashed"}, "failed", "was not measured: it crashed"),
        ({"samples_s": ()}, "failed", "fewer than three processes"),
        ({"equivalence": None}, "not checked", "its outputs were not checked"),
        ({"precision": "bf16"}, "faster", "the training graph in fp32 on ort-cpu, bf16"),
    ],
)
def test_no_speed_of_what_cannot_be_compared(
    facts: dict[str, Any], verdict: str, told: str
) -> None:
    found = said(**facts)
    assert found.verdict == verdict and told in found.sentence
    assert ("0.500x" in found.sentence) == (verdict == "faster")


def test_undecided_and_equal_times_are_named_so() -> None:
    model = made.report().models[0]
    ratio = Estimate(0.99, (0.97, 1.01), 5, 8)
    for word, start in (
        ("same", "flatfold is as fast as"),
        ("inconclusive", "Whether flatfold is faster"),
    ):
        pairs = (Pair("flatfold ort-cpu", "training ort-cpu", ratio, word),)
        (found,) = sentences.headlines(dataclasses.replace(model, pairs=pairs))
        assert found.sentence.startswith(start) and found.verdict == word
        assert "batch 1" in found.sentence
        assert ": 0.990x the time, 95 % interval 0.970–1.01" in found.sentence


def test_without_a_training_graph_the_time_alone_is_told() -> None:
    (found,) = sentences.headlines(dataclasses.replace(made.report().models[0], pairs=()))
    assert found.sentence.startswith("flatfold takes 20.0 ms [20.0, 20.0] on ort-cpu, fp32")
    assert found.verdict == ""


def test_the_order_of_rows_is_by_target_and_time() -> None:
    names = [row.name for row in sentences.ordered(made.report().models[0])]
    assert names[:4] == [f"{n} ort-cpu" for n in ("flatfold", "training", "onnxslim", "onnxsim")]


def test_the_fastest_row_is_one_that_was_decided_to_be() -> None:
    model = whole().models[0]
    assert sentences.fastest(model) == {"flatfold ort-cpu"}, (
        "beside onnxsim on openvino it is the same"
    )
    undecided = [dataclasses.replace(pair, verdict="inconclusive") for pair in model.pairs]
    assert sentences.fastest(dataclasses.replace(model, pairs=tuple(undecided))) == set()


def doubts(model: ModelReport, **environment: Any) -> list[str]:
    report = Report((model,), environment, made.report().options)
    return [check.text for check in machine.checks(report, model) if check.fine is False]


def test_what_would_be_unfair_is_found() -> None:
    model = made.report().models[0]
    right = tuple(row for row in model.rows if row.ranked)
    fine = dataclasses.replace(model, rows=right)
    assert doubts(fine) == []
    assert doubts(model) == ["outputs not verified: onnxsim ort-cpu"]
    loud = dataclasses.replace(fine, noise=Estimate(1, (0.95, 1.05), 5, 8))
    assert doubts(loud)[0].startswith("noise floor ±5.3 %")
    unsteady = dataclasses.replace(right[0], steady=False, precision="bf16")
    assert len(doubts(dataclasses.replace(fine, rows=(unsteady, *right[1:])))) == 2
    busy = {"before": {"busy_cores": 0.1, "throttled": 3}, "after": {"busy_cores": 0.7}}
    assert doubts(fine, **busy, governor=["powersave"]) == [
        "other work kept 0.7 cores busy",
        "governor of the clocks: powersave",
    ]
    assert doubts(fine, governor=7, before="?", after=[1]) == [], "what is strange is not known"


def test_facts_are_lines_of_text() -> None:
    report = dataclasses.replace(
        made.report(),
        environment={"a_b": {"c": [1, 2]}, "d": None, "command": "x", "e": [], "x_s": 2},
        options={"x_s": 2},
    )
    assert facts.facts(report) == [
        ("a b: c", "1, 2"),
        ("d", "unknown"),
        ("e", "none"),
        ("x (s)", "2"),
    ]
    assert facts.date(whole()) == "2026-08-20 10:00 UTC"


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("/some/where/bin/flatfold compare net", "flatfold compare net"),
        ("/some/where/flatfold/__main__.py compare net", "flatfold compare net"),
        ("measure.py net", "measure.py net"),
        ("", ""),
    ],
)
def test_the_command_is_that_of_any_machine(typed: str, told: str) -> None:
    report = dataclasses.replace(made.report(), environment={"command": typed})
    assert facts.command(report) == told


def test_rows_are_ranked_by_what_ran_side_by_side() -> None:
    """On a machine that drifts the medians of two rows may say the opposite of their ratio."""
    (model,) = made.report().models
    rows = tuple(
        dataclasses.replace(r, samples_s=made.row("", 0.05).samples_s)
        if r.variant == "flatfold"
        else r
        for r in model.rows
    )
    drifted = dataclasses.replace(model, rows=rows)
    assert [row.variant for row in drifted.ranking()] == ["flatfold", "training", "onnxslim"]
    alone = dataclasses.replace(drifted, pairs=())
    assert [row.variant for row in alone.ranking()] == ["training", "onnxslim", "flatfold"]
