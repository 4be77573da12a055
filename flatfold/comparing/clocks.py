"""What the driver of an NVIDIA GPU tells while it is measured on: clocks, heat, slow-downs."""

from __future__ import annotations

import csv
import subprocess

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
