"""Facts about this machine: processor, GPUs, load and installed packages."""

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

NO_GPU = "no NVIDIA GPU was found"
GPU_HINT = "use a machine with an NVIDIA GPU and its driver"
GPU_QUERIES = (
    *("name", "driver_version", "clocks.sm", "clocks.mem", "clocks.max.sm"),
    *("temperature.gpu", "power.draw", "clocks_event_reasons.active"),
)
_QUERY_LIMIT_S = 10.0
_SLOWED = 0x8 | 0x20 | 0x40 | 0x80  # hardware, software thermal, hardware thermal, power brake
_CPUINFO = Path("/proc/cpuinfo")
_MODEL_KEYS = ("model name", "cpu model", "cpu part")
_FEATURE_KEYS = ("flags", "features")
_DRIVER = Path("/proc/driver/nvidia/gpus")
_DEVICES = (Path("/dev/nvidia0"), Path("/dev/dxg"))  # the second is that of Linux under Windows


def processor() -> str:
    """Architecture, model and a hash of the instruction sets of the processor, as one text.

    Virtual machines often hide the model, and an engine built for AVX-512 is wrong or slow without
    it, so the instruction sets are included.
    """
    facts = _cpuinfo()
    model = next((facts[k] for k in _MODEL_KEYS if k in facts), "") or platform.processor()
    features = next((facts[k] for k in _FEATURE_KEYS if k in facts), "")
    digest = hashlib.sha256(" ".join(sorted(features.split())).encode()).hexdigest()[:8]
    return " ".join(part for part in (platform.machine(), model, features and digest) if part)


def cores() -> int:
    """The number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def load_average() -> tuple[float, float, float] | None:
    """The load average over 1, 5 and 15 minutes; None if the system does not provide it."""
    return os.getloadavg() if hasattr(os, "getloadavg") else None


def versions(packages: Iterable[str]) -> dict[str, str]:
    """The version of Python and of each distribution; "" for one that is not installed."""
    installed = {"python": platform.python_version()}
    for package in packages:
        try:
            installed[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            installed[package] = ""
    return installed


def nvidia_gpu() -> str:
    """The model of the first GPU, or "NVIDIA GPU" if that is unknown; "" if there is none."""
    for place in sorted(_DRIVER.glob("*/information")):
        for line in place.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "Model" and value.strip():
                return value.strip()
    exists = any(device.exists() for device in _DEVICES) or shutil.which("nvidia-smi") is not None
    return "NVIDIA GPU" if exists else ""


def gpus() -> tuple[dict[str, str], ...]:
    """For each GPU the answers of nvidia-smi to GPU_QUERIES; () without GPU or nvidia-smi."""
    command = [
        "nvidia-smi",
        f"--query-gpu={','.join(GPU_QUERIES)}",
        "--format=csv,noheader,nounits",
    ]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_QUERY_LIMIT_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ()
    rows = csv.reader(done.stdout.splitlines(), skipinitialspace=True)
    return tuple(
        dict(zip(GPU_QUERIES, row, strict=True)) for row in rows if len(row) == len(GPU_QUERIES)
    )


def slowed_down(gpu: dict[str, str]) -> bool:
    """Whether a GPU reports that it runs at lower clocks because of heat or power."""
    try:
        return bool(int(gpu["clocks_event_reasons.active"], 16) & _SLOWED)
    except (KeyError, ValueError):
        return False


def _cpuinfo() -> dict[str, str]:
    """The fields of the first processor in /proc/cpuinfo; {} where there is no such file."""
    try:
        first, _, _ = _CPUINFO.read_text(encoding="utf-8", errors="replace").partition("\n\n")
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip().lower(): value.strip() for key, _, value in pairs}
