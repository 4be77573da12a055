"""Whether there is an NVIDIA GPU, from what its driver shows: no library is loaded for it."""

from __future__ import annotations

import shutil
from pathlib import Path

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
