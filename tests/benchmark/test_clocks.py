"""What the driver of a GPU says of it, from a program that answers as nvidia-smi does."""

from __future__ import annotations

from pathlib import Path

import pytest

from flatfold.benchmark.machine import machine
from flatfold.benchmark.machine.machine import State
from flatfold.system import host

ANSWER = "NVIDIA H200, 570.1, 1980, 3201, 1980, 41, 120.5, {reasons}"


def smi(folder: Path, monkeypatch: pytest.MonkeyPatch, *lines: str, status: int = 0) -> None:
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{chr(10).join(lines)}\nEND\nexit {status}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_each_gpu_is_told_with_its_clocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    smi(tmp_path, monkeypatch, *[ANSWER.format(reasons="0x0000000000000001")] * 2)
    one, two = host.gpus()
    assert one == two and one["name"] == "NVIDIA H200"
    assert (one["clocks.sm"], one["clocks.mem"]) == ("1980", "3201")
    assert not host.slowed_down(one), "idle is no slow-down"


@pytest.mark.parametrize("reasons", ["0x8", "0x0000000000000020", "0x40", "0x81"])
def test_heat_and_want_of_power_are_told(
    reasons: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    smi(tmp_path, monkeypatch, ANSWER.format(reasons=reasons))
    moment = State(0.0, None, None, (), host.gpus())
    cool = State(0.0, None, None, ())
    for before, after in ((moment, cool), (cool, moment)):
        (told,) = machine.warnings(before, after)
        assert "GPU was slowed down" in told
    assert machine.environment(moment, cool, {})["before"]["gpus"][0]["clocks.sm"] == "1980"


def test_where_nothing_can_be_asked_nothing_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert host.gpus() == ()
    smi(tmp_path, monkeypatch, "an error", status=9)
    assert host.gpus() == ()
    smi(tmp_path, monkeypatch, "too, few")
    assert host.gpus() == ()
    assert not host.slowed_down({"clocks_event_reasons.active": "[N/A]"})
