"""docs/results.md and the table of the README say the same, and hold what they promise."""

from __future__ import annotations

import re

from docs import results
from docs.results import BEGIN, END
from flatfold.comparing.data import Report
from flatfold.comparing.markdown import SUMMARY
from tests.comparing.made_whole import whole
from tests.docs.markdown import read

RUN = re.search(r"^RESULTS := (.*?[^\\])$", read("Makefile"), re.MULTILINE | re.DOTALL)
assert RUN is not None
MODELS = RUN[1].replace("\\\n", "").split()


def written(page: str) -> str:
    found: str = read(page).partition(BEGIN)[2].partition(END)[0]
    return found


def rows(text: str, columns: int) -> list[list[str]]:
    """The cells of the first table, without its head."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    table = [row for row in cells if len(row) == columns]
    return table[2:]


def summary() -> list[dict[str, str]]:
    text = written("docs/results.md").partition("\n## ")[0].replace("\\", "")
    names = [name or "" for name in SUMMARY]
    return [dict(zip(names, row, strict=True)) for row in rows(text, len(SUMMARY))]


def test_every_network_is_there_on_both_targets() -> None:
    found = [(row["model"], row["target"]) for row in summary()]
    assert found == [(name, target) for name in MODELS for target in ("ort-cpu", "openvino")]


def test_flatfold_is_slower_than_nothing() -> None:
    words = {row[name].strip() for row in summary() for name in ("verdict", "verdict ")}
    assert words <= {"faster", "same", "inconclusive"}
    text = written("docs/results.md")
    assert "WRONG" not in text and "not measured" not in text
    beside = re.findall(r"^- (flatfold \S+) beside (.*)$", text, re.MULTILINE)
    assert len(beside) == 2 * len(MODELS)
    for row, others in beside:
        told = [part.rsplit(" ", 1)[1] for part in others.split("; ")]
        assert len(told) == 5 and "slower" not in told, f"{row} beside {others}"


def test_the_readme_has_the_same_numbers() -> None:
    ratios = {(r["model"], r["target"]): (r["beside training"], r["verdict"]) for r in summary()}
    table = rows(written("README.md").replace("\\", ""), 3)
    assert [row[0] for row in table] == MODELS
    for name, *cells in table:
        for target, cell in zip(("ort-cpu", "openvino"), cells, strict=True):
            ratio, verdict = ratios[name, target]
            assert cell == f"{ratio.split()[0]} {verdict}"


def test_both_tables_come_from_reports() -> None:
    reports: list[Report] = [whole("one"), whole("two")]
    assert results.overview(reports).strip().splitlines()[2:] == [
        f"| {name} | 0.759× faster | 0.924× faster |" for name in ("one", "two")
    ]
    assert "## two" in results.details(reports)
