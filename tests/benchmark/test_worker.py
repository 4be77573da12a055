"""A worker gives its cores back before another one runs."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from flatfold.benchmark.measure import worker
from flatfold.benchmark.measure.job import Job
from flatfold.benchmark.measure.worker import LOOK_S, SETTLED_S, Worker
from flatfold.system.child import read_job


class Clock:
    """The time of a process whose other threads wait actively until `rest`."""

    def __init__(self, rest: float) -> None:
        self.rest, self.now = rest, 0.0

    def perf_counter(self) -> float:
        return self.now

    def process_time(self) -> float:
        return min(self.now, self.rest)

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.mark.parametrize("rest", [0.0, 0.048, 0.3])
def test_it_waits_until_its_threads_rest(rest: float, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(rest)
    monkeypatch.setattr(worker, "time", clock)
    Worker(Job("a", "ort-cpu", 1)).settle()
    assert rest <= clock.now <= rest + 2 * LOOK_S


def test_it_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(60.0)
    monkeypatch.setattr(worker, "time", clock)
    Worker(Job("a", "ort-cpu", 1)).settle()
    assert SETTLED_S <= clock.now <= SETTLED_S + LOOK_S + 1e-9


def test_a_job_has_no_unknown_keys_and_the_right_types(tmp_path: Path) -> None:
    path = tmp_path / "job.json"
    job = Job("training", "ort-cpu", 2, (0, 1), options={"intra_threads": 2}, inputs=("x",))
    path.write_text(json.dumps(asdict(job)))
    assert read_job(path, Job) == job
    for fault, message in (({"treads": 1}, "unknown keys.*treads"), ({"threads": "1"}, "threads")):
        path.write_text(json.dumps({**asdict(job), **fault}))
        with pytest.raises(TypeError, match=message):
            read_job(path, Job)
