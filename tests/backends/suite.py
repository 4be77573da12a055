"""The targets and the engines that the tests of all targets run with."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from flatfold.backends import TARGETS, load_backend
from flatfold.backends.base import Engine
from flatfold.system.host import nvidia_gpu
from tests.backends.small_nets import make_model

HEAD = '<ir_version: 10, opset_import: ["" : 20]> '

ON_GPU = {"build": ("trt", "ort-cuda"), "run": ("trt", "trt-rtx", "ort-cuda")}

# Quick to build, and with no more threads than the machine that tests it has.
OPTIONS: dict[str, dict[str, object]] = {
    "ort-cpu": {"intra_threads": 1},
    "openvino": {"threads": 1},
    "trt-rtx": {} if nvidia_gpu() else {"compute_capabilities": "89"},
}


def targets(step: str) -> list[object]:
    """Every target, marked `gpu` if it needs one for this step, "build" or "run"."""
    marks = {name: [pytest.mark.gpu] if name in ON_GPU[step] else [] for name in TARGETS}
    return [pytest.param(name, marks=marks[name], id=name) for name in TARGETS]


def needed(target: str, step: str) -> str:
    """The name of a target that can do this step here; skips the test, with the reason, if not."""
    state = load_backend(target).availability()
    if not state.available or (step == "run" and not state.runs):
        pytest.skip(f"{target}: {state.reason}")
    return target


def build(target: str, model: ir.Model | None = None) -> Engine:
    """An engine for a target, of the small model by default."""
    return load_backend(target).build(model or make_model(), OPTIONS.get(target, {}))
