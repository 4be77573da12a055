"""What the charts are drawn with: axes, steps, kinds of layers, and sketches."""

from __future__ import annotations

import dataclasses
from xml.etree import ElementTree

import pytest

from flatfold.benchmark.html import blocks, distributions, intervals, layers, roofline, waterfall
from flatfold.benchmark.html.charts import Axis, look
from flatfold.benchmark.report import Box, ModelReport, Sketch
from tests.benchmark.made_whole import whole

MODEL = whole().models[0]


def test_an_axis_is_logarithmic_where_it_must_be() -> None:
    narrow = Axis.around([1.0, 3.9], 0, 100)
    assert not narrow.log and narrow.low < 1 and narrow.high > 3.9
    wide = Axis.around([1.0, 100.0], 0, 100, margin=0)
    assert wide.log and wide.at(10) == pytest.approx(50)
    assert wide.at(1000) == 100 and wide.at(0.1) == 0, "what is outside stands at the end"


@pytest.mark.parametrize(
    ("axis", "ticks"),
    [
        (Axis(0, 1.05, 0, 1), [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (Axis(21.4, 29.1, 0, 1), [22, 24, 26, 28]),
        (Axis(1, 100, 0, 1, True), [1, 3, 10, 30, 100]),
        (Axis(2, 2.0001, 0, 1), None),
        (Axis(1e-9, 1e9, 0, 1, True), None),
    ],
)
def test_ticks_are_round_and_few(axis: Axis, ticks: list[float] | None) -> None:
    found = axis.ticks()
    assert ticks is None or found == pytest.approx(ticks)
    assert 1 < len(found) <= 8
    assert all(axis.low <= tick <= axis.high * (1 + 1e-9) for tick in found)


def test_a_variant_looks_the_same_on_every_target() -> None:
    looks = {(row.variant, look(MODEL, row)) for row in MODEL.rows}
    assert len(looks) == len({row.variant for row in MODEL.rows})
    assert ("flatfold", "flatfold") in looks and ("faulty", "wrong") in looks


def test_every_chart_is_well_formed_and_names_what_is_wrong_nowhere() -> None:
    drawn = [
        intervals.intervals(MODEL, "ort-cpu"),
        distributions.cumulative(MODEL, "ort-cpu"),
        distributions.strip(MODEL, "ort-cpu"),
        waterfall.waterfall(MODEL, "ort-cpu"),
        layers.stacks(MODEL, "ort-cpu"),
        roofline.roofline(whole(), MODEL, "ort-cpu"),
    ]
    for chart in drawn:
        root = ElementTree.fromstring(chart)
        assert [child.tag for child in root[:2]] == ["title", "desc"]
        assert "faulty" not in "".join(root.itertext())


def test_charts_of_nothing_are_left_out() -> None:
    empty = dataclasses.replace(MODEL, rows=(), steps=(), profiles=())
    for chart in (
        intervals.intervals(empty, "ort-cpu"),
        distributions.strip(empty, "ort-cpu"),
        waterfall.waterfall(empty, "ort-cpu"),
        layers.stacks(empty, "ort-cpu"),
        roofline.roofline(whole(), empty, "ort-cpu"),
    ):
        assert chart == ""


def test_the_steps_fall_to_the_time_of_the_last() -> None:
    found = waterfall.levels(MODEL, "ort-cpu")
    assert [level.before for level in found[1:]] == [level.after for level in found[:-1]]
    assert found[0].after == 1 and found[-1].after == pytest.approx(0.759, abs=0.01)
    apart = dataclasses.replace(MODEL, step_rows=())
    from_ratios = waterfall.levels(apart, "ort-cpu")
    assert from_ratios[-1].after == pytest.approx(found[-1].after, rel=0.01)


def test_kinds_of_layers_add_up() -> None:
    profiles = layers.profiles_on(MODEL, "ort-cpu")
    assert [profile.row for profile in profiles] == ["training ort-cpu", "flatfold ort-cpu"]
    table = layers.kinds(profiles)
    assert next(iter(table)) == "Conv" and table["Add"][1].count == 0
    for number, profile in enumerate(profiles):
        seconds = sum(found[number].seconds for found in table.values())
        assert seconds == pytest.approx(layers.total(profile))


def test_boxes_may_stand_in_any_order() -> None:
    names = ("output", "Relu", "input")
    boxes = tuple(Box((name,), "other" if name == "Relu" else "") for name in names)
    drawn = blocks.picture(Sketch(boxes, ((2, 1), (1, 0))), 'a "title" <b>')
    root = ElementTree.fromstring(drawn)
    assert root.get("aria-label") == 'a "title" <b>'
    heights = {e.text: float(e.get("y", 0)) for e in root.iter("text")}
    assert heights["input"] < heights["Relu"] < heights["output"]
    assert blocks.picture(Sketch(boxes, ((2, 7),)), "") == ""


def traces(model: ModelReport, name: str) -> list[list[str]]:
    """The places from left to right of each process's blocks."""
    root = ElementTree.fromstring(distributions.strip(model, "ort-cpu"))
    paths = [
        path.get("d", "") for path in root.iter("path") if path.get("class") == f"trace {name}"
    ]
    return [[point.split(",")[0] for point in path[1:].split("L")] for path in paths]


def test_a_row_that_rested_has_a_gap_in_its_line() -> None:
    def rested(*names: str) -> ModelReport:
        rows = [
            dataclasses.replace(row, samples_s=(*row.samples_s[:3], (), *row.samples_s[4:]))
            if not names or row.variant in names
            else row
            for row in MODEL.rows
        ]
        return dataclasses.replace(MODEL, rows=tuple(rows))

    full = traces(MODEL, "flatfold")
    assert len(full) == 6
    alone = rested("flatfold")
    assert traces(alone, "flatfold") == [*full[:3], *full[4:]]
    assert traces(alone, "training") == traces(MODEL, "training")
    nobody = traces(rested(), "flatfold")
    assert [len(process) for process in nobody] == [8] * 5, "a round without blocks takes no room"
    assert nobody[-1][-1] == full[-1][-1]
