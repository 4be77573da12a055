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


def pairs(ours: float, other: float, differ: float = 0.0) -> list[tuple[Timing, Timing]]:
    """Timings of five builds, whose engines differ by this share."""
    factors = 1 + differ * np.random.default_rng(0).normal(size=5)
    return [(timing(ours * f, n), timing(other, n + 9)) for n, f in enumerate(factors)]


@pytest.mark.parametrize("ours, verdict", [(1.5, "slower"), (1.005, "undecided"), (0.9, "faster")])
def test_the_fastest_other_one_is_what_counts(ours, verdict):
    times = {"flatfold": timing(ours, 0), "a": timing(1, 1), "b": timing(2, 2)}
    row = row_of("net", "ort-cpu", times, pairs(ours, 1))
    assert row.fastest == "a" and row.verdict == verdict
    assert row.ratio == pytest.approx(ours, rel=0.01)


def test_builds_that_differ_decide_nothing():
    times = {"flatfold": timing(1.03, 0), "a": timing(1, 1)}
    assert row_of("net", "ort-cpu", times, pairs(1.03, 1)).verdict == "slower"
    assert row_of("net", "ort-cpu", times, pairs(1.03, 1, differ=0.05)).verdict == "undecided"


def test_the_same_graph_is_neither_faster_nor_slower():
    one = timing(1.0, 0)
    row = row_of("net", "ort-cpu", {"flatfold": one, "onnxsim": one, "file": timing(2, 1)}, [])
    assert row.verdict == "the same graph" and row.ratio is None


def test_a_page_has_the_verdicts_of_each_target():
    times = {"flatfold": timing(1, 0), "file": timing(2, 1)}
    rows = [
        row_of("one", "ort-cpu", times, pairs(1, 2)),
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
