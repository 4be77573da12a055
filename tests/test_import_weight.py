"""What an import loads: a user who wants `--help` or the API must not wait for a framework."""

from __future__ import annotations

import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import flatfold

ROOT = Path(__file__).parent.parent
ENGINES = ("onnxruntime", "tensorrt", "tensorrt_rtx", "openvino", "pycuda")
HEAVY = ("torch", "onnxscript", "onnxsim", *ENGINES)

# The networks of the zoo are torch code; they are imported when one of them is created.
NETWORKS = "flatfold.models."


def loaded_by(*modules: str) -> set[str]:
    """Top-level packages that a fresh interpreter holds after importing `modules`."""
    code = (
        f"import importlib, json, sys\nfor name in {modules!r}: importlib.import_module(name)\n"
        "print(json.dumps([name for name in sys.modules if '.' not in name]))"
    )
    process = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    return set(json.loads(process.stdout))


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("flatfold", (*HEAVY, "onnx", "onnx_ir", "numpy", "rich", "typer")),
        ("flatfold.__main__", (*HEAVY, "onnx", "onnx_ir", "numpy", "rich")),
        ("flatfold.models", (*HEAVY, "onnx", "onnx_ir", "numpy")),
        ("flatfold.backends", (*HEAVY, "onnx", "onnx_ir")),
        ("flatfold.passes", HEAVY),
    ],
)
def test_import_is_light(module: str, unwanted: tuple[str, ...]) -> None:
    found = loaded_by(module).intersection(unwanted)
    assert not found, f"import {module} loads {', '.join(sorted(found))}"


def test_no_module_loads_a_framework_or_an_engine() -> None:
    """Every module but the networks, in one interpreter: heavy imports belong inside functions."""
    found = pkgutil.walk_packages(flatfold.__path__, "flatfold.")
    names = [module.name for module in found if not module.name.startswith(NETWORKS)]
    assert {
        "flatfold.passes.lifting.lifter",
        "flatfold.frontend.pytorch.export",
        "flatfold.backends.onnxruntime.cpu",
    } <= {*names}
    heavy = loaded_by(*names).intersection(HEAVY)
    assert not heavy, f"one of the modules of flatfold loads {', '.join(sorted(heavy))}"


def test_the_probe_sees_what_is_loaded() -> None:
    assert {"numpy", "flatfold"} <= loaded_by("flatfold.passes.stencil.stencil")
