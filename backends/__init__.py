"""Engines, which run a model, and the backends that build them.

    base.py          Backend and Engine, the two classes that each target implements
    options.py       options of a target, from a dictionary or from "name=value"
    tensors.py       inputs and outputs of an engine: their description, checks and random values
    attribution.py   the time of each layer of an engine, and the graph nodes that it computes
    onnxruntime/     targets ort-cpu and ort-cuda
    openvino/        target openvino
    tensorrt/        targets trt and trt-rtx
    store/           engines saved to disk, and the cache of engines

To add a target, write `backends/<name>.py` with a `Backend` and an `Engine`, and add one line to
`TARGETS`, the best target first. Importing this package loads no SDK.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from flatfold.errors import TargetUnavailable, UnknownName

if TYPE_CHECKING:
    from flatfold.backends.base import Availability, Backend, Engine, precision_of
    from flatfold.backends.options import read_options
    from flatfold.backends.tensors import (
        TensorSpec,
        check_sizes,
        random_feeds,
        shapes_of,
        specs_of,
    )

__all__ = [
    "TARGETS",
    "Availability",
    "Backend",
    "Engine",
    "TensorSpec",
    "availability_table",
    "best_target",
    "check_sizes",
    "load_backend",
    "precision_of",
    "random_feeds",
    "read_options",
    "running_targets",
    "shapes_of",
    "specs_of",
]

# In order of preference: `best_target` takes the first that is available.
TARGETS: dict[str, str] = {
    "trt": "flatfold.backends.tensorrt.engine:trt",
    "trt-rtx": "flatfold.backends.tensorrt.engine:trt_rtx",
    "ort-cuda": "flatfold.backends.onnxruntime.cuda:OrtCuda",
    "ort-cpu": "flatfold.backends.onnxruntime.cpu:OrtCpu",
    "openvino": "flatfold.backends.openvino.engine:Openvino",
}

_MODULES = {
    **dict.fromkeys(("Availability", "Backend", "Engine", "precision_of"), "base"),
    **dict.fromkeys(
        ("TensorSpec", "check_sizes", "random_feeds", "shapes_of", "specs_of"), "tensors"
    ),
    "read_options": "options",
}


def load_backend(name: str) -> Backend:
    """The backend of target `name`. Raises UnknownName, with similar names, if there is none."""
    if name not in TARGETS:
        raise UnknownName("target", name, TARGETS, hint="`flatfold targets` lists them")
    module, _, attribute = TARGETS[name].partition(":")
    backend: Backend = getattr(importlib.import_module(module), attribute)()
    return backend


def availability_table() -> dict[str, Availability]:
    """Whether each target can be used here, and why not, in order of preference."""
    return {name: load_backend(name).availability() for name in TARGETS}


def running_targets() -> list[str]:
    """The targets that can build and run here, in order of preference.

    Raises TargetUnavailable, with what each target lacks, if there is none.
    """
    table = availability_table()
    running = [name for name, state in table.items() if state.available and state.runs]
    if running:
        return running
    raise TargetUnavailable(
        "no target is available here",
        where="; ".join(f"{name}: {state.reason}" for name, state in table.items()),
        hint="; ".join(dict.fromkeys(state.hint for state in table.values() if state.hint)),
    )


def best_target() -> str:
    """The most preferred target that runs here. Raises TargetUnavailable if there is none."""
    return running_targets()[0]


def __getattr__(name: str) -> Any:
    """The other names of `__all__`, imported when first used: their modules need NumPy."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
