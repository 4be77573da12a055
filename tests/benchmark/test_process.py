"""A worker that crashes, hangs, raises or prints is understood; nothing of it is left."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from flatfold.benchmark.measure import process
from flatfold.benchmark.measure.job import Job
from flatfold.benchmark.measure.process import Process
from flatfold.benchmark.measure.protocol import Started
from flatfold.errors import TargetError


@pytest.fixture(autouse=True)
def faulty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "MODULE", "tests.benchmark.faulty_worker")


@pytest.fixture
def begun(tmp_path: Path) -> Iterator[list[Process]]:
    found: list[Process] = []
    yield found
    for one in found:
        one.close()
        one.close()  # a second time does nothing
        assert not one.alive


def begin(folder: Path, begun: list[Process], fault: str = "") -> Process:
    job = Job("light", "none", 1, options={"fault": fault})
    found = Process(job, folder)
    begun.append(found)
    assert found.start() == Started(0.5, 0.25, "fp32", 3)
    return found


def test_answers_arrive_although_something_prints(tmp_path: Path, begun: list[Process]) -> None:
    one = begin(tmp_path, begun)
    assert one.block(2) == [0.123456789, 0.2]
    assert "a line on stdout" in one.child.log.read_text()


def test_a_crash_has_its_signal_and_the_end_of_the_log(
    tmp_path: Path, begun: list[Process]
) -> None:
    one = begin(tmp_path, begun, "crash")
    with pytest.raises(TargetError, match=r"SIGABRT.*not happy") as caught:
        one.block(1)
    assert caught.value.where == "light on target none"
    with pytest.raises(TargetError, match="SIGABRT"):
        one.block(1)


def test_what_hangs_is_ended(tmp_path: Path, begun: list[Process]) -> None:
    one = begin(tmp_path, begun, "hang")
    one.child.time_limit, before = 0.5, time.monotonic()
    with pytest.raises(TargetError, match=r"longer than 0\.5 s"):
        one.block(1)
    assert time.monotonic() - before < 30
    assert not one.alive


def test_what_a_library_raises_is_an_answer(tmp_path: Path, begun: list[Process]) -> None:
    one = begin(tmp_path, begun, "raise")
    with pytest.raises(TargetError, match="ZeroDivisionError: what a library raises"):
        one.block(1)
    assert one.alive


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="the system tells no affinity")
def test_threads_and_cores_are_those_of_the_job(tmp_path: Path, begun: list[Process]) -> None:
    core = max(os.sched_getaffinity(0))
    job = Job("light", "none", 3, (core,))
    one = Process(job, tmp_path)
    begun.append(one)
    one.start()
    assert os.sched_getaffinity(one.child.process.pid) == {core}
    environment = Path(f"/proc/{one.child.process.pid}/environ").read_bytes().split(b"\0")
    assert b"OMP_NUM_THREADS=3" in environment
