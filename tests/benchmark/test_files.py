"""A report in files: whole or not at all, read back as it was, and nothing else is taken."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flatfold.benchmark.report import Report
from flatfold.benchmark.views import files
from flatfold.errors import InputError, OutputError
from tests.benchmark import made
from tests.benchmark.made_parts import HOSTILE
from tests.benchmark.made_whole import whole


@pytest.mark.parametrize(
    ("name", "start"),
    [("r.html", "<!doctype html>"), ("r.MD", "# Latency comparison"), ("r.json", "{")],
)
def test_the_ending_says_which_form(tmp_path: Path, name: str, start: str) -> None:
    whole().save(tmp_path / name)
    assert (tmp_path / name).read_text("utf-8").startswith(start)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_what_was_saved_as_data_is_read_back(tmp_path: Path) -> None:
    whole().save(tmp_path / "r.json")
    assert Report.from_json((tmp_path / "r.json").read_text()) == whole()


@pytest.mark.parametrize("name", ["r", "r.txt", "r.html.gz", ".html"])
def test_other_endings_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"ends in \.html, \.md, \.json"):
        made.report().save(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(OutputError):
        made.report().save(tmp_path / "nowhere" / "r.html")
    (tmp_path / "r.html").mkdir()
    with pytest.raises(OutputError):
        made.report().save(tmp_path / "r.html")
    with pytest.raises(InputError, match="holds one report, and these are 2"):
        files.save([made.report()] * 2, tmp_path / "r.json")


def test_what_was_there_stays_where_writing_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "r.md").write_text("before")

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OutputError, match="No space left"):
        made.report().save(tmp_path / "r.md")
    monkeypatch.undo()
    assert (tmp_path / "r.md").read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["r.md"]


def damaged(change: Callable[[Any], Any]) -> str:
    content = json.loads(whole().to_json())
    change(content)
    return json.dumps(content)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda c: c["models"][0]["rows"][0]["samples_s"][0][0].append(0.0), "not positive"),
        (lambda c: c["models"][0]["pairs"][0]["ratio"].update(value=-1.0), "not positive"),
        (lambda c: c["models"][0]["rows"][0].update(macs=10**400), "too large"),
        (lambda c: c["limits"][0].update(flops=float("nan")), "or is none"),
        (lambda c: c["models"][0]["rows"][0].update(precision=7), "damaged"),
        (lambda c: c.update(schema=2), "expected a report of schema 1"),
    ],
)
def test_a_damaged_report_is_refused(change: Callable[[Any], Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        Report.from_json(damaged(change))


def test_an_error_without_bounds_is_read_back() -> None:
    report = made.report()
    wrong = dataclasses.replace(made.WRONG, error=float("inf"))
    rows = (dataclasses.replace(report.models[0].rows[1], equivalence=wrong),)
    model = dataclasses.replace(report.models[0], rows=rows, pairs=())
    endless = dataclasses.replace(report, models=(model,))
    assert Report.from_json(endless.to_json()) == endless


def test_markdown_has_a_table_and_no_markup_of_others(tmp_path: Path) -> None:
    whole().save(tmp_path / "r.md")
    text = (tmp_path / "r.md").read_text("utf-8")
    lines = text.splitlines()
    rows = [line for line in lines if line.startswith("| ")]
    assert len(rows) == 2 + 13
    assert {line.replace(r"\|", "").count("|") for line in rows} == {14}
    assert rows[2].startswith("| **flatfold** | ort-cpu | fp32 | 21.7 ms [")
    assert any(line.startswith("| faulty ") and "| WRONG |" in line for line in rows)
    outside = text.partition("```")[0]
    assert "<" not in outside and HOSTILE not in text
    assert "rewrites added one by one on ort-cpu" in text
    assert "- declined for ort-cpu and openvino: compose-convs (COST) at stage0.0" in text
    assert lines[0] == "# Latency comparison" and "## repvgg_a0" in lines


def test_reports_of_one_machine_share_its_lines(tmp_path: Path) -> None:
    later = dataclasses.replace(
        whole("other"), environment={**whole().environment, "date": "2026-08-21T10:00:00+00:00"}
    )
    apart = dataclasses.replace(whole("third"), environment={"processor": "a Z80"})
    files.save([whole(), later, apart], tmp_path / "r.md")
    text = (tmp_path / "r.md").read_text("utf-8")
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    assert headings == [
        *("## repvgg_a0", "## other", "## Measured on", "## third", "## Measured on")
    ]
    assert "2026-08-20 10:00 UTC; 2026-08-21 10:00 UTC." in text


def test_several_models_have_a_table_of_them_all(tmp_path: Path) -> None:
    files.save([made.report(0.02, "one"), made.report(0.05, "two")], tmp_path / "r.md")
    lines = (tmp_path / "r.md").read_text("utf-8").splitlines()
    head = next(at for at, line in enumerate(lines) if line.startswith("| model |"))
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[head : head + 4]]
    assert len({len(row) for row in cells}) == 1
    assert [row[0] for row in cells[2:]] == ["one", "two"]
    assert [row[4] for row in cells[2:]] == ["2.00x faster", "1.25x slower"]
    files.save([made.report()], tmp_path / "one.md")
    assert "| model |" not in (tmp_path / "one.md").read_text("utf-8")
