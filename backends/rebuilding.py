"""Whether a saved engine fits this machine, or has to be built again from its graph."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from flatfold.backends.bundle import MODEL
from flatfold.backends.environment import versions
from flatfold.escaping import clean

_log = logging.getLogger(__name__)


def rebuild_reason(
    manifest: Mapping[str, Any], file: str, packages: Iterable[str], device: str, here: str
) -> str:
    """Why the engine in `file` cannot be used, "" if it can.

    `packages` must be those that built it, and `device`, "processor" say, must be `here`.
    """
    if file not in manifest["files"]:
        return "the engine was too large to save"
    for package in packages:
        found = str(manifest["versions"].get(package, ""))
        installed = versions([package])[package]
        if found != installed:
            there = clean(found) or "none"
            return f"it was built with {package} {there}, this is {installed or 'none'}"
    built = str(manifest["engine"].get(device))
    if built != here:
        return f"it was built for {clean(built)}, this is {here}"
    return ""


def log_rebuild(folder: Path, reason: str) -> None:
    """A warning, so that nobody wonders why loading takes long or a latency is another."""
    _log.warning("%s: rebuilding the engine from %s: %s", clean(str(folder)), MODEL, reason)
