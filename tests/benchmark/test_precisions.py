"""A row of another precision is shown beside flatfold's, and ranked with no other."""

from __future__ import annotations

from dataclasses import replace

from flatfold.benchmark.checks import notes, pairs_of
from flatfold.benchmark.html.page import page
from flatfold.benchmark.report import FLATFOLD, TRAINING, ModelReport, Report
from flatfold.benchmark.views import sentences
from flatfold.benchmark.views.markdown import markdown
from flatfold.result import Rounded
from tests.benchmark import made

HALF = Rounded("bf16", 45, 47, 4, 3, True, 41.7, 0.995)


def model() -> ModelReport:
    rows = [
        made.row(TRAINING, 0.03),
        made.row(FLATFOLD, 0.02),
        made.row("onnxsim", 0.025),
        replace(made.row(f"{FLATFOLD} bf16", 0.01, rounded=HALF), precision="bf16"),
    ]
    pairs = pairs_of({row.name: row for row in rows}, None, made.QUICK)
    inputs = {"x": (1, 3, 8, 8)}
    return ModelReport("net", inputs, rows[0].name, tuple(rows), tuple(pairs))


def test_the_fastest_row_is_one_of_full_precision() -> None:
    ranking = [row.variant for row in model().ranking()]
    assert ranking == [FLATFOLD, "onnxsim", TRAINING]
    assert all("bf16" not in name for name in sentences.fastest(model()))
    assert [h.row.variant for h in sentences.headlines(model())] == [FLATFOLD]
    assert "bf16" not in " ".join(h.sentence + h.more for h in sentences.headlines(model()))


def test_it_is_compared_with_flatfold_in_float32_only() -> None:
    narrow = [pair for pair in model().pairs if "bf16" in pair.row + pair.against]
    target = model().rows[0].target
    assert [(p.row, p.against) for p in narrow] == [
        (f"{FLATFOLD} bf16 {target}", f"{FLATFOLD} {target}")
    ]


def test_its_time_stands_beside_what_the_roundings_change() -> None:
    (line,) = sentences.other_precisions(model())
    for words in ("0.500x the time", "45 of 47 nodes in bf16", "42 dB", "99.5%"):
        assert words in line
    report = Report((model(),), made.report().environment, {})
    for view in (markdown([report]), page([report])):
        assert "45 of 47 nodes in bf16" in view
        assert "not ranked" in view


def test_a_report_keeps_it() -> None:
    report = Report((model(),), made.report().environment, {})
    assert Report.from_json(report.to_json()).models[0].rows[3].rounded == HALF


def test_no_note_warns_of_a_precision_that_was_asked_for() -> None:
    assert not any("one precision" in note for note in notes(model(), made.QUICK))
    rows = list(model().rows)
    rows[2] = replace(rows[2], precision="fp16")
    mixed = replace(model(), rows=tuple(rows))
    assert any("one precision" in note for note in notes(mixed, made.QUICK))
