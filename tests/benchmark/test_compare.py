"""Real engines in real processes, one variant planted wrong and one that crashes."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from flatfold.benchmark.baseline import changes
from flatfold.benchmark.candidates import candidates
from flatfold.benchmark.machine import machine
from flatfold.benchmark.measure import process, protocol
from flatfold.benchmark.measure.protocol import Plan
from flatfold.benchmark.report import Report, Row
from flatfold.benchmark.session import report_on
from flatfold.errors import InputError, UnknownName
from flatfold.sources import resolve
from tests.benchmark import made
from tests.cli.running import write_onnx


def planted(tool: str, model: ir.Model) -> ir.Model:
    """What the tool makes of `model`; onnxsim's has one weight that is off by a tenth."""
    graph = model.clone()
    if tool == "onnxsim":
        value = next(iter(graph.graph.initializers.values()))
        assert value.const_value is not None
        array = value.const_value.numpy().copy()
        array.flat[0] += 0.1 * np.abs(array).max()
        value.const_value = ir.tensor(array, name=value.name)
    return graph


def report(path: Path, plan: Plan = made.QUICK, **options: Any) -> Report:
    asked: dict[str, Any] = {"against": ["onnxsim", "onnxslim"], "threads": 1, **options}
    return report_on([lambda: resolve(path)], ["ort-cpu"], plan=plan, **asked)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Report:
    path = write_onnx(tmp_path_factory.mktemp("net") / "net.onnx", size=24)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process, "MODULE", "tests.benchmark.faulty_worker")
        patch.setattr(protocol, "MORE", 1)
        patch.setattr(candidates, "rewritten_by", planted)
        patch.setattr(candidates, "installed_tools", lambda: ["onnxsim", "onnxslim"])
        return report(path)


def test_every_row_says_what_it_is(found: Report) -> None:
    (model,) = found.models
    names = [f"{tool} ort-cpu" for tool in ("training", "onnxsim", "onnxslim", "flatfold")]
    assert [row.name for row in model.rows] == names
    assert (model.model, model.inputs, model.rounds) == ("net", {"image": (1, 4, 24, 24)}, 6)
    training, _, _, ours = model.rows
    assert (training.nodes, ours.nodes) == (4, 2)
    assert ours.macs is not None and training.macs is not None and ours.macs < training.macs
    assert ours.proof == "certified" and training.proof == ""
    for row in (training, ours):
        assert row.precision == "fp32" and row.latency is not None and row.ranked
        blocks = [len(process) for process in row.samples_s]
        assert blocks == [made.QUICK.blocks] * 6
        assert blocks == [len(process) for process in training.samples_s]
        assert len(row.build_s) == len(row.first_call_s) == 6
        low, high = row.latency.interval
        assert 0 < low <= row.latency.value <= high


def test_a_wrong_variant_is_marked_and_never_ranked(found: Report) -> None:
    (model,) = found.models
    wrong = model.rows[1]
    assert wrong.wrong and wrong.equivalence is not None
    assert wrong.equivalence.error > wrong.equivalence.bound
    assert wrong.latency is not None, "its time is shown beside the mark"
    assert wrong not in model.ranking()
    assert wrong.name not in {name for pair in model.pairs for name in (pair.row, pair.against)}


def test_a_variant_that_crashes_is_a_row_with_its_reason(found: Report) -> None:
    (model,) = found.models
    crashed = model.rows[2]
    assert "SIGABRT" in crashed.reason and "not happy" in crashed.reason
    assert crashed.latency is None and not crashed.ranked
    assert crashed.equivalence is not None and crashed.equivalence.passed


def test_the_pairs_are_those_that_may_be_compared(found: Report) -> None:
    (model,) = found.models
    assert [(p.row, p.against) for p in model.pairs] == [("flatfold ort-cpu", "training ort-cpu")]
    assert model.noise is not None and model.noise.processes == 6


def test_what_each_rewrite_and_each_layer_takes_is_in_it(found: Report) -> None:
    (limit,) = found.limits
    assert limit.target == "ort-cpu" and limit.flops > 1e9 and limit.bytes > 1e8
    (model,) = found.models
    training, ours = model.rows[0], model.rows[3]
    for row in (training, ours):
        assert row.floor_s is not None and row.floor_s > 0
        assert row.bytes is not None and row.macs is not None
        assert row.floor_s >= 2 * row.macs / limit.flops
    assert ours.bytes is not None and training.bytes is not None and ours.bytes < training.bytes
    first, *_, last = model.steps
    assert (first.row, last.row) == (training.name, ours.name)
    assert (first.nodes, last.nodes) == (training.nodes, ours.nodes)
    assert last.ratio is not None and last.applied > 0
    names = {row.name for row in (*model.rows, *model.step_rows)}
    assert {step.row for step in model.steps} <= names
    assert not {row.name for row in model.step_rows} & {pair.row for pair in model.pairs}
    assert [profile.row for profile in model.profiles] == [training.name, ours.name]
    for profile in model.profiles:
        total = sum(layer.seconds for layer in profile.layers)
        assert total > 0 and any(layer.nodes for layer in profile.layers)
        assert all(layer.floor_s is None or layer.floor_s > 0 for layer in profile.layers)
    for side, profile in zip(("before_s", "after_s"), model.profiles, strict=True):
        moved = sum(getattr(move, side) for move in model.moves)
        assert moved == pytest.approx(sum(layer.seconds for layer in profile.layers))
    (changes,) = model.changes
    assert sum(changes.operators_before.values()) == training.nodes
    assert sum(changes.operators_after.values()) == ours.nodes
    assert changes.blocks and any(decision.applied for decision in changes.decisions)


def test_the_environment_is_enough_to_measure_again(found: Report) -> None:
    facts = found.environment
    assert facts["threads"] == 1 and facts["targets"] == ["ort-cpu"] and facts["seed"] == 0
    assert facts["affinity"] == machine.cores_for(1)
    assert {"processor", "cores", "governor", "command", "date"} <= facts.keys()
    assert {"python", "onnxruntime"} <= facts["versions"].keys()
    assert {"busy_cores", "load_average"} <= facts["before"].keys() & facts["after"].keys()
    assert found.options["rounds"] == 6 and found.options["delta"] == 0.02


def test_json_there_and_back(found: Report) -> None:
    text = found.to_json()
    assert json.loads(text)["schema"] == 1
    assert Report.from_json(text) == found
    assert Report.from_json(text).to_json() == text
    row = json.loads(text)["models"][0]["rows"][1]
    assert row["wrong"] and not row["ranked"] and row["median_s"] > 0
    assert row["percentiles_s"]["p50"] > 0


def test_percentiles_are_given_where_there_are_runs_enough() -> None:
    few = Row("training", "ort-cpu", samples_s=(((1.0,) * 5,) * 2,) * 3)
    assert few.percentiles == {50: 1.0, 90: None, 95: None, 99: None}
    some = Row("training", "ort-cpu", samples_s=(((1.0,) * 10,) * 2,) * 3)
    assert some.percentiles == {50: 1.0, 90: 1.0, 95: None, 99: None}


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"schema": 2}', '{"schema": 1}', '{"schema": 1, "models": [1]}']
)
def test_what_is_no_report_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        Report.from_json(text)


def slowed(report: Report, factor: float, variant: str = "flatfold") -> Report:
    """The report of a machine on which this variant takes so many times as long."""

    def of(row: Any) -> Any:
        nested = tuple(
            tuple(tuple(factor * run for run in b) for b in blocks) for blocks in row.samples_s
        )
        return dataclasses.replace(row, samples_s=nested) if variant in row.name else row

    models = tuple(
        dataclasses.replace(model, rows=tuple(map(of, model.rows))) for model in report.models
    )
    return dataclasses.replace(report, models=models)


def steady(report: Report) -> Report:
    """The report with the same time for each run of a row: what is tested is the judgement."""

    def of(row: Any) -> Any:
        blocks = tuple(((1.0, 1.0), (1.0, 1.0)) for process in row.samples_s if process)
        return dataclasses.replace(row, samples_s=blocks)

    models = tuple(
        dataclasses.replace(model, rows=tuple(map(of, model.rows))) for model in report.models
    )
    return dataclasses.replace(report, models=models)


def test_a_regression_is_what_is_slower_beside_the_training_graph(found: Report) -> None:
    old = steady(found)
    ((word, failed),) = [(c.verdict, c.failed) for c in changes(old, slowed(old, 1.1), 0.05)]
    assert (word, failed) == ("slower", True)
    for new in (old, slowed(old, 1.04), slowed(old, 0.5), slowed(old, 2.0, "ort-cpu")):
        assert not any(change.failed for change in changes(old, new, 0.05))


def test_without_a_training_graph_in_both_the_times_themselves_are_compared() -> None:
    old, new = made.report(0.02), made.report(0.02)
    (model,) = new.models
    training, *others = model.rows
    unranked = dataclasses.replace(training, reason="it crashed")
    for rows in ((unranked, *others), tuple(others)):
        without = dataclasses.replace(new, models=(dataclasses.replace(model, rows=rows),))
        for a, b in ((old, without), (without, old)):
            (change,) = changes(a, b, 0.05)
            assert (change.verdict, change.failed) == ("same", False)
        (change,) = changes(old, slowed(without, 1.2), 0.05)
        assert change.failed and change.ratio is not None
        assert change.ratio.value == pytest.approx(1.2)


def test_what_is_no_longer_measured_is_a_regression(found: Report) -> None:
    (model,) = found.models
    rows = tuple(dataclasses.replace(row, reason="it crashed") for row in model.rows)
    new = dataclasses.replace(found, models=(dataclasses.replace(model, rows=rows),))
    (change,) = changes(found, new, 0.05)
    assert change.failed and change.reason == "it crashed"


@pytest.mark.parametrize("fact", ["processor", "threads"])
def test_another_machine_is_no_baseline(found: Report, fact: str) -> None:
    other = dataclasses.replace(found, environment={**found.environment, fact: "other"})
    with pytest.raises(InputError, match=fact):
        changes(other, found, 0.05)


def test_a_wrong_name_is_told_before_anything_is_measured(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="onnxsmi"):
        report(tmp_path / "not there.onnx", against=["onnxsmi"])
