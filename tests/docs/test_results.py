"""docs/results.md and the table of the README are those of the reports kept, which hold enough."""

from __future__ import annotations

import re

import pytest

from docs import results
from docs.results import BEGIN, END
from flatfold import timing
from flatfold.benchmark.report import FLATFOLD, ModelReport
from tests.benchmark.made_whole import whole
from tests.docs.markdown import read

REPORTS = results.measured()
KEPT = [model for report in REPORTS for model in report.models]
RUN = re.search(r"^RESULTS := (.*?[^\\])$", read("Makefile"), re.MULTILINE | re.DOTALL)
TOOLS = ("training", "onnxsim", "onnxslim", "onnxscript", FLATFOLD)
ROWS = {f"{tool} {target}" for tool in TOOLS for target in ("ort-cpu", "openvino")}
ROWS |= {"eager torch", "torch.compile torch"}


def written(page: str) -> str:
    return read(page).partition(BEGIN)[2].partition(END)[0]


def test_the_tables_are_those_of_the_reports_kept() -> None:
    assert written("docs/results.md") == results.details(REPORTS)
    assert written("README.md") == results.overview(REPORTS)


def test_make_measures_the_same_networks() -> None:
    assert RUN is not None
    assert [model.model for model in KEPT] == RUN[1].replace("\\\n", "").split()


@pytest.mark.parametrize("model", KEPT, ids=lambda model: model.model)
def test_no_row_is_missing_or_wrong_and_none_is_faster_than_flatfold(model: ModelReport) -> None:
    assert {row.name for row in model.rows} == ROWS
    assert all(row.ranked for row in model.rows)
    assert model.rounds >= 5 and model.noise is not None
    ours = [pair for pair in model.pairs if pair.row.startswith(FLATFOLD)]
    assert len(ours) == 2 * 6  # beside the training graph, three tools and two of PyTorch
    assert [pair for pair in ours if pair.verdict == timing.SLOWER] == []


def test_both_tables_come_from_any_reports() -> None:
    reports = [whole("one"), whole("two")]
    assert results.overview(reports).strip().splitlines()[2:] == [
        f"| {name} | 1.32x faster (0.758x) | 1.08x faster (0.923x) |" for name in ("one", "two")
    ]
    assert "## two" in results.details(reports)
