"""Facts about this machine that make a saved engine or a measurement reproducible."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
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
