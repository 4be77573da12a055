"""Engines: what runs a model. `TARGETS` names them; nothing here loads an SDK.

To add one: write `backends/<name>.py` with a `Backend` and an `Engine` (see `base.py`), and add one
line to `TARGETS`, best target first.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from flatfold.errors import TargetUnavailable, UnknownName

if TYPE_CHECKING:
    from flatfold.backends.base import Availability, Backend

# In order of preference: `best_target` takes the first that is available.
TARGETS: dict[str, str] = {
    "trt": "flatfold.backends.tensorrt.engine:trt",
    "trt-rtx": "flatfold.backends.tensorrt.engine:trt_rtx",
    "ort-cuda": "flatfold.backends.onnxruntime.cuda:OrtCuda",
    "ort-cpu": "flatfold.backends.onnxruntime.cpu:OrtCpu",
    "openvino": "flatfold.backends.openvino.engine:Openvino",
}


def load_backend(name: str) -> Backend:
    """The backend called `name`. Raises UnknownName, with near names, when there is none."""
    if name not in TARGETS:
        raise UnknownName("target", name, TARGETS, hint="`flatfold targets` lists them")
    module, _, attribute = TARGETS[name].partition(":")
    backend: Backend = getattr(importlib.import_module(module), attribute)()
    return backend


def availability_table() -> dict[str, Availability]:
    """Each target, in order of preference, with whether it can be used here and why not."""
    return {name: load_backend(name).availability() for name in TARGETS}


def running_targets() -> list[str]:
    """The targets that can build and run here, the most preferred one first.

    Raises TargetUnavailable, with what each of them lacks, when there is none.
    """
    table = availability_table()
    found = [name for name, state in table.items() if state.available and state.runs]
    if found:
        return found
    raise TargetUnavailable(
        "no target is available here",
        where="; ".join(f"{name}: {state.reason}" for name, state in table.items()),
        hint="; ".join(dict.fromkeys(state.hint for state in table.values() if state.hint)),
    )


def best_target() -> str:
    """The most preferred target that runs here. Raises TargetUnavailable when there is none."""
    return running_targets()[0]
