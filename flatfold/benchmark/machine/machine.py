"""The machine: its facts, its state before and after, and what would make a comparison unfair."""

from __future__ import annotations

import os
import platform
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from flatfold.benchmark.report import ModelReport, Report
from flatfold.benchmark.views.facts import threads
from flatfold.benchmark.views.sentences import noise, percent
from flatfold.system import host
from flatfold.system.host import cores, load_average, processor, versions
from flatfold.timing import INCONCLUSIVE

PACKAGES = (
    "flatfold",
    "numpy",
    "onnx",
    "onnx-ir",
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxscript",
    "onnxsim",
    "onnxslim",
    "openvino",
    "torch",
)
WATCHED_S = 0.5  # how long the processors are watched for other work
LOADED = 0.2  # cores kept busy by other work; above this the times are not reliable
DELTA = 0.02  # within which times are the same, unless the report says otherwise

_STAT = Path("/proc/stat")
_CPUS = Path("/sys/devices/system/cpu")


@dataclass(frozen=True)
class State:
    """The machine at one moment: cores busy with other work, load, throttlings, clocks in kHz.

    `gpus` are the facts of `system.host.gpus`. None and () mean not known.
    """

    busy: float | None
    load: tuple[float, float, float] | None
    throttled: int | None
    clocks_khz: tuple[int, ...]
    gpus: tuple[dict[str, str], ...] = ()


def state(sleep: Callable[[float], None] = time.sleep) -> State:
    """The state of the machine, measured over half a second in which this process is idle."""
    before, begin = busy_seconds(_text(_STAT)), time.monotonic()
    sleep(WATCHED_S)
    after, seconds = busy_seconds(_text(_STAT)), time.monotonic() - begin
    busy = round((after - before) / max(seconds, WATCHED_S), 2) if before and after else None
    counts = [int(text) for text in _each("cpu[0-9]*/thermal_throttle/core_throttle_count")]
    khz = tuple(int(text) for text in _each("cpu[0-9]*/cpufreq/scaling_cur_freq"))
    throttled = sum(counts) if counts else None
    return State(busy, load_average(), throttled, khz, host.gpus())


def busy_seconds(stat: str) -> float | None:
    """Processor time spent so far by all programs and other virtual machines, from /proc/stat."""
    first = stat.partition("\n")[0].split()
    if len(first) < 9 or first[0] != "cpu":
        return None
    user, nice, system, _idle, _waiting, irq, softirq, steal = (int(n) for n in first[1:9])
    return (user + nice + system + irq + softirq + steal) / 100  # hundredths of a second


def warnings(before: State, after: State) -> list[str]:
    """What happened on the machine that makes the times less reliable."""
    messages = []
    for when, moment in (("began", before), ("ended", after)):
        if moment.busy is not None and moment.busy > LOADED:
            messages.append(
                f"other work kept {moment.busy:.1f} of {cores()} cores busy when it {when}: "
                "measure again on an idle machine"
            )
    if before.throttled is not None and (after.throttled or 0) > before.throttled:
        count = (after.throttled or 0) - before.throttled
        messages.append(f"the processor was slowed down {count} times because it was too hot")
    if any(map(host.slowed_down, (*before.gpus, *after.gpus))):
        messages.append("the GPU was slowed down because it was too hot or short of power")
    return messages


def affinity() -> list[int]:
    """The cores that this process may use; empty where the system does not say."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def physical_cores() -> list[int]:
    """One of `affinity` for each physical core: hardware threads of one core share it."""
    first: dict[str, int] = {}
    for core in affinity():
        siblings = _text(_CPUS / f"cpu{core}/topology/thread_siblings_list").strip()
        first.setdefault(siblings or f"cpu{core}", core)
    return list(first.values())


def default_threads() -> int:
    """One for each physical core that this process may use."""
    return len(physical_cores()) or cores()


def cores_for(threads: int) -> list[int]:
    """The cores that every worker may use: one physical core for each thread, if there are enough.

    With more cores, two workers could run on different ones, and a disturbance of one core would
    affect only one of them. The last cores are taken, as the system prefers the first.
    """
    physical = physical_cores()
    return physical[-threads:] if threads <= len(physical) else affinity()


def environment(before: State, after: State, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Facts of the machine that are needed to measure again, as JSON values; `facts` are added."""
    return {
        "processor": processor(),
        "system": platform.platform(),
        "cores": cores(),
        "governor": sorted(set(_each("cpu[0-9]*/cpufreq/scaling_governor"))),
        "before": _plain(before),
        "after": _plain(after),
        "versions": {name: v for name, v in versions(PACKAGES).items() if v},
        "command": shlex.join(sys.argv),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        **facts,
    }


def _plain(moment: State) -> dict[str, Any]:
    return {
        "busy_cores": moment.busy,
        "load_average": None if moment.load is None else list(moment.load),
        "throttled": moment.throttled,
        "clocks_khz": list(moment.clocks_khz),
        "gpus": list(moment.gpus),
    }


def _each(pattern: str) -> Iterable[str]:
    """The contents of the files of `pattern` below /sys/devices/system/cpu."""
    texts = (_text(path).strip() for path in sorted(_CPUS.glob(pattern)))
    return [text for text in texts if text]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


@dataclass(frozen=True)
class Check:
    """A possible cause of an unfair comparison; `fine` is None if it is not known."""

    fine: bool | None
    text: str


def checks(report: Report, model: ModelReport) -> Iterator[Check]:
    """The possible causes of an unfair comparison, and whether each was present."""
    alike = f"every row had the same inputs, {threads(report)} and the same cores"
    yield Check(True, alike)
    exact = [row for row in model.rows if row.rounded is None]
    kinds = sorted({row.precision for row in exact if row.precision})
    yield Check(len(kinds) < 2, f"precision of the rows: {', '.join(kinds) or 'unknown'}")
    doubtful = [row.name for row in exact if row.latency and not row.ranked]
    correct = f"outputs not verified: {', '.join(doubtful)}" if doubtful else "all outputs verified"
    yield Check(not doubtful, correct)
    undecided = sum(pair.verdict == INCONCLUSIVE for pair in model.pairs)
    yield Check(not undecided, f"{undecided} of {len(model.pairs)} pairs are undecided")
    option = report.options.get("delta")
    delta = option if isinstance(option, int | float) else DELTA
    yield Check(
        None if model.noise is None else model.noise.deviation <= delta,
        f"noise floor {noise(model)}; times within {percent(delta)} count as the same",
    )
    unsteady = [row.name for row in model.rows if not row.steady]
    yield Check(not unsteady, f"not steady when timed: {', '.join(unsteady) or 'none'}")
    yield from _machine_checks(report.environment)


def _machine_checks(environment: Mapping[str, Any]) -> Iterator[Check]:
    moments = [environment.get(when) for when in ("before", "after")]
    states = [moment if isinstance(moment, Mapping) else {} for moment in moments]
    busy = [s["busy_cores"] for s in states if isinstance(s.get("busy_cores"), int | float)]
    kept = f"other work kept {max(busy):.1f} cores busy" if busy else "other work: not known"
    yield Check(max(busy) <= LOADED if busy else None, kept)
    hot = [s["throttled"] for s in states if isinstance(s.get("throttled"), int)]
    more = hot[-1] - hot[0] if len(hot) == len(states) else None
    text = "not known" if more is None else f"{more} times"
    yield Check(
        None if more is None else more <= 0, f"processor slowed down because of heat: {text}"
    )
    names = environment.get("governor")
    governor = ", ".join(map(str, names)) if isinstance(names, list | tuple) else ""
    yield Check(
        governor == "performance" if governor else None,
        f"governor of the clocks: {governor or 'not known'}",
    )
