"""flatfold report and --save: what is shown, written and refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from flatfold.__main__ import run
from flatfold.benchmark import session
from tests.benchmark import made
from tests.benchmark.made_whole import whole
from tests.cli.running import write_onnx

Read = pytest.CaptureFixture[str]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two reports in the current folder."""
    monkeypatch.chdir(tmp_path)
    whole().save("one.json")
    made.report(name="two").save("two.json")
    return tmp_path


def test_reports_are_shown_and_saved_as_one_page(here: Path, capsys: Read) -> None:
    saves = ["--save", "both.html", "--save", "both.md"]
    assert run(["report", "one.json", "two.json", *saves]) == 0
    printed = capsys.readouterr().out
    assert "repvgg_a0 on image 1x3x224x224" in printed and "two on image" in printed
    assert "AMD EPYC 9B14" in printed and "a processor" in printed
    assert not {"\x1b", "\u202e"} & set(printed)
    for name in ("both.html", "both.md"):
        assert "a processor" in Path(name).read_text("utf-8")


def test_a_report_that_says_little_is_shown(here: Path, capsys: Read) -> None:
    bare = dataclasses.replace(made.report(), environment={"affinity": 3})
    lost = dataclasses.replace(bare.models[0], rows=(), pairs=(), reference="")
    dataclasses.replace(bare, models=(lost,)).save("bare.json")
    assert run(["report", "bare.json"]) == 0
    assert "unknown processor, unknown threads on cores unknown" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "code", "told"),
    [
        (["one.json", "--save", "page.pdf"], 3, "ends in .html, .md, .json"),
        (["one.json", "two.json", "--save", "both.json"], 3, "holds one report"),
        (["one.json", "--save", "nowhere/page.html"], 2, "make the folder first"),
        (["nothing.json"], 3, "cannot read the report"),
        (["page.md"], 3, "no JSON"),
    ],
)
def test_what_cannot_be_is_told(
    here: Path, capsys: Read, args: list[str], code: int, told: str
) -> None:
    Path("page.md").write_text("# no JSON")
    before = sorted(path.name for path in here.iterdir())
    assert run(["report", *args]) == code
    printed = capsys.readouterr()
    assert told in printed.err and "where: " in printed.err and not printed.out
    assert sorted(path.name for path in here.iterdir()) == before


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, here: Path) -> list[Any]:
    """Nothing is measured: the report is fixed."""
    calls: list[Any] = []

    def report_on(*given: Any, **_: Any) -> Any:
        calls.append(given)
        return made.report()

    monkeypatch.setattr(session, "report_on", report_on)
    write_onnx(here / "net.onnx")
    return calls


def test_compare_saves_in_every_form(asked: list[Any]) -> None:
    saves = [f"--save=new.{form}" for form in ("html", "md", "json")]
    assert run(["compare", "net.onnx", *saves]) == 0
    assert "<!doctype html>" in Path("new.html").read_text("utf-8")
    assert Path("new.md").read_text("utf-8").startswith("# Latency comparison")
    assert run(["report", "new.json"]) == 0


@pytest.mark.parametrize("place", ["new.txt", "nowhere/new.html", "."])
def test_compare_refuses_a_place_before_it_measures(asked: list[Any], place: str) -> None:
    assert run(["compare", "net.onnx", "--save", place]) in (2, 3)
    assert not asked
