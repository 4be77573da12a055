"""The part of target "openvino" that runs in a process of its own, and what both sides share."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flatfold.errors import BuildError, InputError
from flatfold.system.isolated import tail
from flatfold.system.progress import Progress

TARGET = "openvino"
ENGINE_FILE = "engine.blob"
PRECISIONS = ("f32", "bf16")  # asked for f16, a CPU runs bf16
PERFORMANCE = ("latency", "throughput")


@dataclass(frozen=True)
class OpenvinoOptions:
    """How OpenVINO runs a model.

    `threads`: 0 lets OpenVINO take one per physical core. `streams`: requests that run at once, 0
    for what suits `performance`, "latency" or "throughput". `inference_precision`: "f32", or
    "bf16", which is faster where the processor has it and keeps 8 bits. `time_limit`: seconds
    after which a build is stopped.
    """

    threads: int = 0
    streams: int = 0
    inference_precision: str = "f32"
    performance: str = "latency"
    time_limit: float = 600.0

    def __post_init__(self) -> None:
        for name, known in (("inference_precision", PRECISIONS), ("performance", PERFORMANCE)):
            if getattr(self, name) not in known:
                raise _wrong(name, f"one of {', '.join(known)}", getattr(self, name))
        for name in ("threads", "streams"):
            if getattr(self, name) < 0:
                raise _wrong(name, "0 or more", getattr(self, name))
        if not self.time_limit > 0:
            raise _wrong("time_limit", "more than 0", self.time_limit)

    def settings(self) -> dict[str, Any]:
        """The same in OpenVINO's words."""
        found: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": self.inference_precision,
            "PERFORMANCE_HINT": self.performance.upper(),
            # Else layers with 8-bit weights have their inputs rounded to 8 bits as well.
            "EXECUTION_MODE_HINT": "ACCURACY",
        }
        if self.threads:
            found["INFERENCE_NUM_THREADS"] = self.threads
        if self.streams:
            found["NUM_STREAMS"] = self.streams
        return found


def make(model: Path, folder: Path, options: Mapping[str, Any], say: Progress) -> None:
    """Compiles the ONNX file `model`, and writes what OpenVINO exports of it into `folder`.

    Imports and runs that once, too, so that whoever imports it here can rely on it.
    """
    import openvino

    settings = OpenvinoOptions(**options)
    core = openvino.Core()
    try:
        read = core.read_model(model)
        say("compiling with openvino")
        content = core.compile_model(read, "CPU", settings.settings()).export_model().getvalue()
    except RuntimeError as error:
        raise BuildError(
            f"openvino {openvino.__version__} refused the model: {tail(error)}",
            where=f"target {TARGET}",
            hint="target ort-cpu runs more operators",
        ) from error
    say("trying the engine")
    _run_once(imported(content, settings))
    (folder / ENGINE_FILE).write_bytes(content)


def imported(content: bytes, options: OpenvinoOptions, **more: object) -> Any:
    """The compiled model in `content`, with the settings it was made with, and `more`."""
    import openvino

    try:
        return openvino.Core().import_model(content, "CPU", {**options.settings(), **more})
    except RuntimeError as error:
        raise BuildError(
            f"openvino {openvino.__version__} cannot read its own engine: {tail(error)}",
            where=f"target {TARGET}",
            hint="build it again",
        ) from error


def _run_once(compiled: Any) -> None:
    """With an open batch, kernels are only made at the first run. Other open sizes are unknown."""
    feeds = {}
    for index, port in enumerate(compiled.inputs):
        sizes = list(port.get_partial_shape())
        if any(size.is_dynamic for size in sizes[1:]):
            return
        shape = [1 if size.is_dynamic else size.get_length() for size in sizes]
        feeds[index] = np.zeros(shape, port.get_element_type().to_dtype())
    with suppress(RuntimeError):  # what zeros do to the graph is no fault of the engine
        compiled.create_infer_request().infer(feeds)


def _wrong(name: str, expected: str, found: object) -> InputError:
    cause = f"option {name!r}: expected {expected}, found {found!r}"
    return InputError(cause, where=f"target {TARGET}")
