"""The two editions of TensorRT, and the options of each."""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Mapping
from dataclasses import dataclass

from flatfold.errors import InputError

PLAN_FILE, FACTS_FILE = "engine.plan", "facts.json"

DEFAULT_CAPABILITIES = "80,86,89,120"
"""Compute capabilities to build for without a GPU. 75 (Turing) has to be requested, because not
every layer can be compiled for it ahead of time."""


@dataclass(frozen=True)
class TrtOptions:
    """The options of both editions of TensorRT.

    `workspace_mib`: scratch memory in MiB, 0 for no limit. `optimization_level`: 0 to 5, -1 for
    TensorRT's default. `tf32`: multiply float32 numbers with 10 bits of mantissa. `shapes`: the
    range of open sizes as "input=min:best:max", such as
    "x=1x3x224x224:8x3x224x224:32x3x224x224", several inputs separated by commas; an open batch
    alone is 1 to 32, best for 1. `cuda_graph`: a bound call records a run and replays it. `device`:
    the number of the GPU. `time_limit`: seconds that a build may take.
    """

    workspace_mib: int = 0
    optimization_level: int = -1
    tf32: bool = False
    shapes: str = ""
    cuda_graph: bool = True
    device: int = 0
    time_limit: float = 600.0

    def __post_init__(self) -> None:
        _require(self, "workspace_mib", self.workspace_mib >= 0, "0 or more")
        _require(self, "optimization_level", -1 <= self.optimization_level <= 5, "-1 to 5")
        _require(self, "device", self.device >= 0, "0 or more")
        _require(self, "time_limit", self.time_limit > 0, "more than 0")

    def runs_in(self, precision: str) -> str:
        """The precision in which a graph of precision `precision` runs."""
        return precision.replace("fp32", "tf32") if self.tf32 else precision


@dataclass(frozen=True)
class ClassicOptions(TrtOptions):
    """The options of TensorRT.

    `timing_cache`: a file with the times of kernels, read before and written after a build.
    `version_compatible`: the engine also runs in later versions. `hardware_compatible`: it also
    runs on later GPUs.
    """

    timing_cache: str = ""
    version_compatible: bool = False
    hardware_compatible: bool = False


@dataclass(frozen=True)
class RtxOptions(TrtOptions):
    """The options of TensorRT for RTX.

    `compute_capabilities`: those to build for, such as "86,89"; "" for that of the GPU here, or
    for DEFAULT_CAPABILITIES without one.
    """

    compute_capabilities: str = ""


@dataclass(frozen=True)
class Edition:
    """One edition of TensorRT.

    `module` is the module to import, `packages` are the distributions that contain it, and
    `install` is the command that installs them. `builds_without_gpu`: it can build for given
    compute capabilities without a GPU.
    """

    target: str
    name: str
    module: str
    packages: tuple[str, ...]
    install: str
    options: type[TrtOptions]
    builds_without_gpu: bool

    @property
    def installed(self) -> bool:
        return importlib.util.find_spec(self.module) is not None


EDITIONS: Mapping[str, Edition] = {
    "trt": Edition(
        "trt",
        "TensorRT",
        "tensorrt",
        ("tensorrt",),
        "pip install 'flatfold[trt]'",
        ClassicOptions,
        builds_without_gpu=False,
    ),
    "trt-rtx": Edition(
        "trt-rtx",
        "TensorRT for RTX",
        "tensorrt_rtx",
        ("tensorrt_rtx_cu13",),
        "pip install 'flatfold[trt-rtx]'",
        RtxOptions,
        builds_without_gpu=True,
    ),
}


def profiles(text: str) -> dict[str, list[list[int]]]:
    """ "x=1x3:2x3:4x3" as {"x": [[1, 3], [2, 3], [4, 3]]}. Raises InputError."""
    ranges = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, sizes = part.rpartition("=")
        try:
            shapes = [[int(size) for size in shape.split("x")] for shape in sizes.split(":")]
        except ValueError:
            shapes = []
        ordered = len(shapes) == 3 and len({len(shape) for shape in shapes}) == 1
        if not name or not ordered or any(a > b for a, b in _size_pairs(shapes)):
            raise InputError(
                f"option 'shapes': expected input=min:best:max, found {part!r}",
                hint="such as x=1x3x224x224:8x3x224x224:32x3x224x224",
            )
        ranges[name] = shapes
    return ranges


def _size_pairs(shapes: list[list[int]]) -> list[tuple[int, int]]:
    """Each size of a shape with the same size of the next shape."""
    pairs = itertools.pairwise(shapes)
    return [sizes for low, high in pairs for sizes in zip(low, high, strict=True)]


def _require(options: TrtOptions, name: str, holds: bool, expected: str) -> None:
    if not holds:
        value = getattr(options, name)
        raise InputError(f"option {name!r}: expected {expected}, found {value}")
