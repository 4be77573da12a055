"""Facts about this machine that make a saved engine or a measurement reproducible."""

from __future__ import annotations

import csv
import hashlib
import importlib.metadata
import os
import platform
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
_MODEL_KEYS = ("model name", "cpu model", "cpu part")
_FEATURE_KEYS = ("flags", "features")


def processor() -> str:
    """Architecture, model and a hash of the instruction sets, equal on equal processors.

    The instruction sets are part of it because virtual machines often hide the model, and an
    engine laid out for AVX-512 is wrong, or slow, without it.
    """
    facts = _cpuinfo()
    model = next((facts[k] for k in _MODEL_KEYS if k in facts), "") or platform.processor()
    features = next((facts[k] for k in _FEATURE_KEYS if k in facts), "")
    digest = hashlib.sha256(" ".join(sorted(features.split())).encode()).hexdigest()[:8]
    return " ".join(part for part in (platform.machine(), model, features and digest) if part)


def cores() -> int:
    """The cores this process may use, which can be fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def load_average() -> tuple[float, float, float] | None:
    """Over 1, 5 and 15 minutes; None where the system does not tell."""
    return os.getloadavg() if hasattr(os, "getloadavg") else None


def versions(packages: Iterable[str]) -> dict[str, str]:
    """The installed version of each distribution, "" if it is not installed, and of Python."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = ""
    return found


def _cpuinfo() -> dict[str, str]:
    """The facts about the first processor; empty where there is no /proc."""
    try:
        first, _, _ = _CPUINFO.read_text(encoding="utf-8", errors="replace").partition("\n\n")
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip().lower(): value.strip() for key, _, value in pairs}


_DRIVER = Path("/proc/driver/nvidia/gpus")
_DEVICES = (Path("/dev/nvidia0"), Path("/dev/dxg"))  # the second one: in a Linux under Windows
NO_GPU = "no NVIDIA GPU was found"
GPU_HINT = "use a machine with an NVIDIA GPU and its driver"


def nvidia_gpu() -> str:
    """The model of the first GPU, or "NVIDIA GPU" where it is not told; "" if there is none."""
    for place in sorted(_DRIVER.glob("*/information")):
        for line in place.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "Model" and value.strip():
                return value.strip()
    there = any(device.exists() for device in _DEVICES) or shutil.which("nvidia-smi") is not None
    return "NVIDIA GPU" if there else ""


FACTS = (
    *("name", "driver_version", "clocks.sm", "clocks.mem", "clocks.max.sm"),
    *("temperature.gpu", "power.draw", "clocks_event_reasons.active"),
)
SLOWED = 0x8 | 0x20 | 0x40 | 0x80  # hardware, software for heat, hardware for heat, power brake
TIME_LIMIT = 10.0


def gpus() -> tuple[dict[str, str], ...]:
    """The facts of each GPU, by their names in nvidia-smi; () where there is none to be asked."""
    command = ["nvidia-smi", f"--query-gpu={','.join(FACTS)}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=TIME_LIMIT, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ()
    rows = csv.reader(done.stdout.splitlines(), skipinitialspace=True)
    return tuple(dict(zip(FACTS, row, strict=True)) for row in rows if len(row) == len(FACTS))


def slowed_down(gpu: dict[str, str]) -> bool:
    """Whether the GPU says that it runs below its clocks for its heat, or for want of power."""
    try:
        return bool(int(gpu["clocks_event_reasons.active"], 16) & SLOWED)
    except (KeyError, ValueError):
        return False
