"""What this machine does at best, measured by the targets themselves."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flatfold.benchmark.machine import roofline

CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roofline, "SIDES", (128, 256))
    monkeypatch.setattr(roofline, "WARM_S", 0.1)


def test_numbers_are_plausible_and_a_target_that_fails_has_none(tmp_path: Path) -> None:
    said: list[str] = []
    options = {"ort-cpu": {"intra_threads": 1}, "openvino": {"threads": -1}, "trt-rtx": {}}
    (limit,) = roofline.measured_limits(options, 1, CORES, tmp_path, said.append)
    assert limit.target == "ort-cpu"
    assert 1e9 < limit.flops < 1e14
    assert 1e9 < limit.bytes < 1e13
    assert said[-1] == "measuring a product of matrices on target openvino"


def test_there_is_none_of_targets_that_do_not_run_on_the_processor(tmp_path: Path) -> None:
    assert roofline.measured_limits({"trt-rtx": {}}, 1, CORES, tmp_path, print) == ()


def test_a_copy_is_much_larger_than_the_cache(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sizes = {"index0": "32K", "index3": "96M", "index9": "?"}
    for name, text in sizes.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "size").write_text(f"{text}\n")
    monkeypatch.setattr(roofline, "_CACHES", tmp_path)
    assert roofline.last_level_cache() == 96 * 2**20
    assert roofline.size() == 4 * 96 * 2**20
    monkeypatch.setattr(roofline, "_CACHES", tmp_path / "none")
    assert roofline.size() == roofline.LEAST


def test_every_byte_is_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roofline, "LEAST", 800)
    monkeypatch.setattr(roofline, "_CACHES", Path("none"))
    one = roofline.Copying(threads=3)
    assert one.run({}) == {} and (one.target == 1).all() and one.target.nbytes == 800
