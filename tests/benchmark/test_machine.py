"""What is said about the machine: other work, heat, and what it takes to measure again."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from flatfold.benchmark.machine import machine
from flatfold.benchmark.machine.machine import State

IDLE = State(0.0, (0.1, 0.1, 0.1), 3, (2_000_000,))


def stat(busy: int, idle: int, stolen: int = 0) -> str:
    return f"cpu  {busy} 0 0 {idle} 50 0 0 {stolen} 0 0\ncpu0 1 2 3 4 5 6 7 8 9 10\n"


def test_busy_seconds_are_those_of_all_cores_and_of_other_machines() -> None:
    assert machine.busy_seconds(stat(300, 9999)) == 3
    assert machine.busy_seconds(stat(300, 9999, stolen=100)) == 4
    assert machine.busy_seconds("") is None
    assert machine.busy_seconds("intr 1 2 3") is None


def test_state_counts_what_others_do_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "stat"
    place.write_text(stat(100, 0))
    monkeypatch.setattr(machine, "_STAT", place)
    monkeypatch.setattr(machine, "_CPUS", tmp_path)
    # Three quarters of a second of work in the half second: one and a half cores.
    found = machine.state(sleep=lambda _: (place.write_text(stat(175, 0)), None)[1])
    assert found.busy == 1.5
    assert (found.throttled, found.clocks_khz) == (None, ())


def test_a_loaded_or_hot_machine_is_told() -> None:
    assert machine.warnings(IDLE, IDLE) == []
    loaded, hot = State(1.5, None, 3, ()), State(0.0, None, 7, ())
    assert "1.5 of" in machine.warnings(loaded, IDLE)[0]
    assert "when it ended" in machine.warnings(IDLE, loaded)[0]
    assert "slowed down 4 times" in machine.warnings(IDLE, hot)[0]
    unknown = State(None, None, None, ())
    assert machine.warnings(unknown, unknown) == []


@pytest.mark.parametrize(
    ("threads", "cores"), [(1, [5]), (2, [4, 5]), (3, [1, 4, 5]), (4, [1, 2, 4, 5, 6])]
)
def test_workers_have_no_more_cores_than_threads(
    threads: int, cores: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where 1 is the sibling of 2, and 5 that of 6; what 4 is, the system does not tell."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {6, 5, 4, 2, 1}, raising=False)
    monkeypatch.setattr(machine, "_CPUS", tmp_path)
    for core, siblings in {1: "1-2", 2: "1-2", 5: "5-6", 6: "5-6"}.items():
        place = tmp_path / f"cpu{core}/topology/thread_siblings_list"
        place.parent.mkdir(parents=True)
        place.write_text(f"{siblings}\n")
    assert machine.physical_cores() == [1, 4, 5] and machine.default_threads() == 3
    assert machine.cores_for(threads) == cores


def test_cores_are_left_to_a_system_that_tells_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert machine.physical_cores() == machine.cores_for(1) == []
    assert machine.default_threads() == os.cpu_count()


def test_the_environment_is_plain_json() -> None:
    found = machine.environment(IDLE, IDLE, {"threads": 2})
    assert json.loads(json.dumps(found)) == found
    assert found["threads"] == 2 and found["versions"]["python"]
    assert found["before"]["throttled"] == 3
