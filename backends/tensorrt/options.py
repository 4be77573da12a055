"""The two TensorRTs: what differs between them, and the options of each."""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Mapping
from dataclasses import dataclass

from flatfold.errors import InputError

PLAN_FILE, FACTS_FILE = "engine.plan", "facts.json"

AHEAD = "80,86,89,120"
"""Compute capabilities to build for where there is no GPU. Turing, 75, has to be asked for: not
every layer can be compiled for it ahead of time."""


@dataclass(frozen=True)
class TrtOptions:
    """How TensorRT builds and runs an engine.

    `workspace_mib`: scratch memory in MiB, 0 for as much as there is. `optimization_level`: 0 to 5,
    -1 for TensorRT's own. `tf32`: let float32 products keep 10 bits of mantissa. `shapes`: for open
    sizes, "input=min:best:max" such as "x=1x3x224x224:8x3x224x224:32x3x224x224", several inputs
    separated by commas; an open batch alone is 1 to 32, best for 1. `cuda_graph`: record a timed
    run and replay it. `device`: number of the GPU. `time_limit`: seconds that a build may take.
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
        """What a graph of this precision really runs in."""
        return precision.replace("fp32", "tf32") if self.tf32 else precision


@dataclass(frozen=True)
class ClassicOptions(TrtOptions):
    """`timing_cache`: a file with the times of kernels, read before and written after a build.

    `version_compatible`: runs in later versions too. `hardware_compatible`: on later GPUs too.
    """

    timing_cache: str = ""
    version_compatible: bool = False
    hardware_compatible: bool = False


@dataclass(frozen=True)
class RtxOptions(TrtOptions):
    """`compute_capabilities`: what to build for, such as "86,89"; "" for the GPU here, if any."""

    compute_capabilities: str = ""


@dataclass(frozen=True)
class Edition:
    """One of the two.

    `module` is imported and `packages` are the distributions that it comes in, the first of which
    `install` brings. `ahead`: it builds without a GPU, for compute capabilities given.
    """

    target: str
    name: str
    module: str
    packages: tuple[str, ...]
    install: str
    options: type[TrtOptions]
    ahead: bool

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
        ahead=False,
    ),
    "trt-rtx": Edition(
        "trt-rtx",
        "TensorRT for RTX",
        "tensorrt_rtx",
        ("tensorrt_rtx_cu13",),
        "pip install 'flatfold[trt-rtx]'",
        RtxOptions,
        ahead=True,
    ),
}


def profiles(text: str) -> dict[str, list[list[int]]]:
    """ "x=1x3:2x3:4x3" as {"x": [[1, 3], [2, 3], [4, 3]]}. Raises InputError."""
    found = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, sizes = part.rpartition("=")
        try:
            shapes = [[int(size) for size in shape.split("x")] for shape in sizes.split(":")]
        except ValueError:
            shapes = []
        ordered = len(shapes) == 3 and len({len(shape) for shape in shapes}) == 1
        if not name or not ordered or any(a > b for a, b in _steps(shapes)):
            raise InputError(
                f"option 'shapes': expected input=min:best:max, found {part!r}",
                hint="such as x=1x3x224x224:8x3x224x224:32x3x224x224",
            )
        found[name] = shapes
    return found


def _steps(shapes: list[list[int]]) -> list[tuple[int, int]]:
    pairs = itertools.pairwise(shapes)
    return [sizes for low, high in pairs for sizes in zip(low, high, strict=True)]


def _require(options: TrtOptions, name: str, holds: bool, expected: str) -> None:
    if not holds:
        found = getattr(options, name)
        raise InputError(f"option {name!r}: expected {expected}, found {found}")
