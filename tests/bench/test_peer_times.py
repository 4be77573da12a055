"""What `make peer-times` says of given timings; the engines are timed on a real file."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from bench.peer_times import Row, page, row_of, timed
from flatfold.timing import Timing
from tests.nets import Net


def timing(median: float, seed: int) -> Timing:
    return Timing(tuple(median * np.random.default_rng(seed).normal(1, 0.001, 40)))


@pytest.mark.parametrize("ours, verdict", [(1.5, "slower"), (1.005, "undecided"), (0.9, "faster")])
def test_the_fastest_other_one_is_what_counts(ours, verdict):
    row = row_of(
        "net", "ort-cpu", {"flatfold": timing(ours, 0), "a": timing(1, 1), "b": timing(2, 2)}
    )
    assert row.fastest == "a" and row.verdict == verdict
    assert row.ratio == pytest.approx(ours, rel=0.01)


def test_the_same_graph_is_neither_faster_nor_slower():
    one = timing(1.0, 0)
    row = row_of("net", "ort-cpu", {"flatfold": one, "onnxsim": one, "file": timing(2, 1)})
    assert row.verdict == "the same graph" and row.ratio is None


def test_what_two_processes_say_is_all_that_either_does():
    row = row_of("net", "ort-cpu", {"flatfold": timing(1.1, 0), "file": timing(1, 1)})
    assert row.verdict == "slower" and row.with_second(row) == row
    other = row_of("net", "ort-cpu", {"flatfold": timing(0.99, 2), "file": timing(1, 3)})
    both = row.with_second(other)
    assert both.verdict == "undecided"
    assert both.interval == (other.interval[0], row.interval[1])
    assert both.ratio == pytest.approx((1.1 * 0.99) ** 0.5, rel=0.01)


def test_a_page_has_the_verdicts_of_each_target():
    rows = [
        row_of("one", "ort-cpu", {"flatfold": timing(1, 0), "file": timing(2, 1)}),
        Row("two", "ort-cpu", {}, reason="one run takes 3.0 s"),
    ]
    text = page([*rows])
    assert "Of 2 files: 1 faster, 1 not timed." in text
    assert "| one | " in text and "not timed: one run takes 3.0 s" in text


def test_a_file_is_timed_on_each_target(tmp_path):
    net = Net((1, 8, 14, 14), dtype=np.float32)
    y = net.op("Relu", net.bn(net.conv(net.x, 8, 8, (3, 3)), 8))
    onnx.save(net.model(y), tmp_path / "net.onnx")
    rows = timed("net", str(tmp_path / "net.onnx"), 0.1)
    assert [row.target for row in rows] == ["ort-cpu", "openvino"]
    assert all({"file", "flatfold", "onnxsim"} <= set(row.medians) for row in rows)
