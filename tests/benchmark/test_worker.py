"""A worker gives its cores back before another one runs."""

from __future__ import annotations

import pytest

from flatfold.benchmark.measure import worker
from flatfold.benchmark.measure.worker import LOOK_S, SETTLED_S, Worker


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
    Worker({}).settle()
    assert rest <= clock.now <= rest + 2 * LOOK_S


def test_it_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(60.0)
    monkeypatch.setattr(worker, "time", clock)
    Worker({}).settle()
    assert SETTLED_S <= clock.now <= SETTLED_S + LOOK_S + 1e-9
