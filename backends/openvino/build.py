"""Building for target openvino in a child process, and the options and the import of an engine."""

from __future__ import annotations

import functools
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
PRECISIONS = ("f32", "bf16")  # with f16, OpenVINO uses bf16 on a processor
PERFORMANCE = ("latency", "throughput")


@dataclass(frozen=True)
class OpenvinoOptions:
    """The options of OpenVINO.

    `threads`: 0 for one per physical core. `streams`: requests that run at the same time; 0 lets
    OpenVINO choose for `performance`, "latency" or "throughput". `inference_precision`: "f32", or
    "bf16", which has 8 bits of mantissa and is faster on processors that support it. `time_limit`:
    seconds after which a build is stopped.
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
        """These options as properties of OpenVINO."""
        properties: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": self.inference_precision,
            "PERFORMANCE_HINT": self.performance.upper(),
            # Otherwise layers with 8-bit weights round their inputs to 8 bits, too.
            "EXECUTION_MODE_HINT": "ACCURACY",
        }
        if self.threads:
            properties["INFERENCE_NUM_THREADS"] = self.threads
        if self.streams:
            properties["NUM_STREAMS"] = self.streams
        return properties


def build(model: Path, folder: Path, options: Mapping[str, Any], progress: Progress) -> None:
    """Compiles the ONNX file `model` and writes the exported engine into `folder`.

    The engine is imported and run once, to show that the parent can do so safely. Raises BuildError
    where OpenVINO refuses the model.
    """
    import openvino

    settings = OpenvinoOptions(**options)
    core = openvino.Core()
    try:
        read = core.read_model(model)
        progress("compiling with openvino")
        content = core.compile_model(read, "CPU", settings.settings()).export_model().getvalue()
    except RuntimeError as error:
        raise BuildError(
            f"openvino {openvino.__version__} refused the model: {tail(error)}",
            where=f"target {TARGET}",
            hint="target ort-cpu runs more operators",
        ) from error
    progress("trying the engine")
    _run_once(import_engine(content, settings))
    (folder / ENGINE_FILE).write_bytes(content)


def import_engine(content: bytes, options: OpenvinoOptions, **more: object) -> Any:
    """The compiled model in `content`, with the properties of `options`, and `more` of them."""
    import openvino

    try:
        return _core().import_model(content, "CPU", {**options.settings(), **more})
    except RuntimeError as error:
        raise BuildError(
            f"openvino {openvino.__version__} cannot read its own engine: {tail(error)}",
            where=f"target {TARGET}",
            hint="build the engine again",
        ) from error


@functools.cache
def _core() -> Any:
    """The one Core of this process.

    Each Core gives the thread that makes it a stack for signal handlers, and takes it away at its
    end; of two that do not end in the opposite order, the first leaves a stack that is gone, on
    which the next signal ends the process. So there is one, which does not end.
    """
    import openvino

    return openvino.Core()


def _run_once(compiled: Any) -> None:
    """Runs an engine on zeros: with an open batch, kernels are compiled at the first run.

    Does nothing where a size other than the batch is open.
    """
    feeds = {}
    for index, port in enumerate(compiled.inputs):
        sizes = list(port.get_partial_shape())
        if any(size.is_dynamic for size in sizes[1:]):
            return
        shape = [1 if size.is_dynamic else size.get_length() for size in sizes]
        feeds[index] = np.zeros(shape, port.get_element_type().to_dtype())
    with suppress(RuntimeError):  # a graph may fail on zeros, which is not the engine's fault
        compiled.create_infer_request().infer(feeds)


def _wrong(name: str, expected: str, value: object) -> InputError:
    cause = f"option {name!r}: expected {expected}, found {value!r}"
    return InputError(cause, where=f"target {TARGET}")
