"""flatfold compare: what it prints and writes, and its exit codes."""

from __future__ import annotations

import dataclasses
import io
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from flatfold.__main__ import run
from flatfold.benchmark import session
from flatfold.benchmark.report import ModelReport, Report
from flatfold.cli.report_table import show
from tests.benchmark import made
from tests.cli.running import flatfold, write_onnx

Read = pytest.CaptureFixture[str]


@pytest.fixture
def canned(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[dict[str, Any]]:
    """Nothing is measured: the report is fixed, and the arguments are recorded."""
    asked: list[dict[str, Any]] = []

    def report_on(sources: Any, targets: Any, **options: Any) -> Report:
        asked.append({"count": len(sources), "targets": targets, **options})
        return made.report()

    monkeypatch.setattr(session, "report_on", report_on)
    monkeypatch.chdir(tmp_path)
    write_onnx(tmp_path / "net.onnx")
    return asked


def test_the_real_command_measures_and_writes(tmp_path: Path) -> None:
    write_onnx(tmp_path / "net.onnx", size=24)
    options = ["--target", "ort-cpu", "--against", "training", "--rounds", "6", "--budget", "0"]
    options += ["--threads", "1", "--no-explain"]
    done = flatfold("compare", "net.onnx", *options, "--json", "-", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    report = Report.from_json(done.stdout)
    (model,) = report.models
    assert [row.variant for row in model.rows] == ["training", "flatfold"]
    assert all(row.ranked and row.floor_s is None for row in model.rows)
    assert not (model.steps or model.step_rows or model.profiles or model.moves or model.changes)
    assert "flatfold ort-cpu" in done.stderr, "the table is for people"
    assert "round 6" in done.stderr, "so is the progress"
    assert report.environment["command"].endswith("--json -")


@pytest.mark.slow
@pytest.mark.skipif(find_spec("openvino") is None, reason="openvino is not installed")
def test_a_precision_has_a_row_of_its_own_with_what_it_changes(tmp_path: Path) -> None:
    write_onnx(tmp_path / "net.onnx", size=24)
    options = ["--target", "openvino", "--against", "training", "--rounds", "6", "--budget", "0"]
    options += ["--precision", "fp32,bf16", "--threads", "1", "--no-explain"]
    done = flatfold("compare", "net.onnx", *options, "--json", "-", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (model,) = Report.from_json(done.stdout).models
    *exact, half = model.rows
    assert [row.variant for row in exact] == ["training", "flatfold"]
    assert all(row.rounded is None and row.precision == "fp32" for row in exact)
    if half.reason:
        assert "computes in fp32" in half.reason  # a processor without bfloat16
        return
    assert (half.variant, half.precision) == ("flatfold bf16", "bf16")
    assert half.rounded is not None and 20 < half.rounded.decibels < 60  # 8 bits leave 53
    assert half.latency is not None and not half.ranked
    assert [p.against for p in model.pairs if p.row == half.name] == ["flatfold openvino"]


def test_the_table_has_every_row_and_verdict(canned: list[Any], capsys: Read) -> None:
    assert run(["compare", "net.onnx"]) == 0
    printed = capsys.readouterr().out
    lines = {line.split("  ")[0]: line for line in printed.splitlines()}
    assert "reference" in lines["training ort-cpu"] and "#" * 20 in lines["training ort-cpu"]
    assert "2.00x faster, 0.500x [0.500–0.500]" in lines["flatfold ort-cpu"]
    assert "sampled, graph certified" in lines["flatfold ort-cpu"]
    assert "WRONG" in lines["onnxsim ort-cpu"] and "the time" not in lines["onnxsim ort-cpu"]
    assert "not measured" in lines["eager torch"]
    for told in (
        "flatfold ort-cpu is 2.00x faster than onnxslim ort-cpu, 0.500x the time",
        "onnxsim ort-cpu is WRONG: refuted",
        "eager torch was not measured to the end: its process was ended by SIGSEGV",
        "flatfold ort-cpu: 168 nodes became 47",
        "noise floor",
        "note: a note",
        "a processor, 2 threads on cores 0,1",
    ):
        assert told in printed
    assert "\x1b" not in printed and "█" not in printed, "plain where there is no terminal"


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_a_terminal_of_any_width_cuts_nothing_off(width: int) -> None:
    stream = io.StringIO()
    options: dict[str, Any] = {"markup": False, "highlight": False, "color_system": None}
    show(made.report(), Console(file=stream, width=width, force_terminal=True, **options))
    printed = stream.getvalue()
    assert "…" not in printed
    assert ("█" * 20 in printed) == (width >= 120)
    words = printed.replace("\n", " ").split()
    assert {"[20.0,", "40.0", "faster", "certified", "WRONG", "fp32"} <= set(words)


def test_what_is_asked_for_arrives(canned: list[dict[str, Any]]) -> None:
    command = "compare net.onnx net.onnx -t ort-cpu -t openvino --against onnxsim,eager"
    assert run([*command.split(), "--rounds", "8", "--budget", "9", "--threads", "2"]) == 0
    (asked,) = canned
    assert (asked["count"], asked["targets"]) == (2, ["ort-cpu", "openvino"])
    assert asked["against"] == ["onnxsim", "eager"] and asked["threads"] == 2
    assert (asked["plan"].rounds, asked["plan"].budget_s) == (8, 9)


@pytest.mark.parametrize(("then", "code"), [(0.0181, 5), (0.0195, 0), (0.03, 0)])
def test_a_regression_has_its_exit_code(
    canned: list[Any], capsys: Read, then: float, code: int
) -> None:
    """flatfold takes 20 ms now: 10 % or 3 % slower than it was, or faster."""
    Path("old.json").write_text(made.report(then).to_json())
    assert run(["compare", "net.onnx", "--baseline", "old.json", "--fail-above", "5%"]) == code
    printed = capsys.readouterr()
    assert ("error[REGRESSION]: 1 of 1 rows" in printed.err) == (code == 5)
    assert "net, flatfold ort-cpu: " in printed.out


def test_how_much_is_allowed_is_asked_for(canned: list[Any]) -> None:
    Path("old.json").write_text(made.report(0.0181).to_json())
    assert run(["compare", "net.onnx", "--baseline", "old.json", "--fail-above", "15"]) == 0
    assert run(["compare", "net.onnx", "--baseline", "old.json", "--fail-above", "-1%"]) == 2


def test_the_report_is_written_and_read_again(canned: list[Any]) -> None:
    assert run(["compare", "net.onnx", "--json", "new.json"]) == 0
    assert Report.from_json(Path("new.json").read_text()) == made.report()
    assert sorted(path.name for path in Path().iterdir()) == ["net.onnx", "new.json"]


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--json", "nowhere/new.json"], 2),
        (["--baseline", "nothing.json"], 3),
        (["--baseline", "net.onnx"], 3),
        (["--rounds", "4"], 2),
        (["--rounds", "7"], 3),
    ],
)
def test_what_cannot_work_is_told_before_anything_is_measured(
    canned: list[Any], capsys: Read, options: list[str], code: int
) -> None:
    assert run(["compare", "net.onnx", *options]) == code
    assert not canned
    assert capsys.readouterr().err.startswith("error[")


def test_a_model_that_was_not_measured_does_not_lose_the_others(
    canned: list[Any], capsys: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = ModelReport("gone", {}, reason="no such file")
    both = dataclasses.replace(made.report(), models=(lost, *made.report().models))
    monkeypatch.setattr(session, "report_on", lambda *_, **__: both)
    assert run(["compare", "gone.onnx", "net.onnx", "--json", "new.json"]) == 7
    assert Report.from_json(Path("new.json").read_text()) == both
    printed = capsys.readouterr()
    assert "gone was not measured: no such file" in printed.out
    assert "flatfold ort-cpu is 2.00x faster" in printed.out
    assert "error[INCONCLUSIVE]: 1 of 2 models" in printed.err


def test_names_from_a_report_cannot_act_on_the_terminal(
    canned: list[Any], capsys: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    hostile = made.report(name="a\x1b[2Jb")
    monkeypatch.setattr(session, "report_on", lambda *_, **__: hostile)
    Path("old.json").write_text(json.dumps(hostile.to_dict()))
    assert run(["compare", "net.onnx", "--baseline", "old.json"]) == 0
    assert "\x1b" not in capsys.readouterr().out
