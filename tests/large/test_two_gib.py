"""Models beyond protobuf's 2 GiB are rewritten and saved in little more memory than their weights.

Each step runs in a new process, so that its peak of memory is known.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flatfold.backends.store import bundle
from flatfold.frontend import read_model
from tests.large import networks

ROOT = Path(__file__).parents[2]
LAYERS = 40
ALLOWED = 1.3  # peak memory, in sizes of the weights

pytestmark = pytest.mark.slow

OPTIMIZE = """
import json, resource, sys
import flatfold, flatfold.passes
import flatfold.frontend.canonicalization.canonicalize, onnxscript.optimizer

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

first = peak()
result = flatfold.optimize(sys.argv[1], verify="off")
passes = peak()
result.save(sys.argv[2])
print(json.dumps({"libraries": first, "passes": passes - first, "saved": peak() - first}))
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("large")
    path = networks.write(folder, LAYERS)
    assert (folder / "weights.bin").stat().st_size > 2**31 and path.stat().st_size < 2**21
    return path


def call(*command: str | Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    line = [sys.executable, *map(str, command)]
    done = subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def require_folded(model: Any, source: Path, layer: int) -> None:
    """Compare convolution `layer` with its BatchNormalization folded here in float64."""
    before = read_model(source).graph.initializers
    scale, shift, mean, var = (
        before[f"{name}{layer}"].const_value.numpy().astype(np.float64)
        for name in networks.STATISTICS
    )
    factor = scale / np.sqrt(var + np.float64(np.float32(1e-5)))
    node = [node for node in model.graph if node.op_type == "Conv"][layer]
    weight, bias = (value.const_value.numpy() for value in node.inputs[1:])
    expected = before[f"w{layer}"].const_value.numpy() * factor.reshape(-1, 1, 1, 1)
    # Both are computed in float64 and rounded to float32 once, by 2**-24 at most.
    np.testing.assert_allclose(weight, expected, rtol=2.0**-23, atol=0)
    np.testing.assert_allclose(bias, shift - mean * factor, rtol=2.0**-23, atol=0)


def test_rewritten_and_saved(large: Path, tmp_path: Path) -> None:
    weights = LAYERS * networks.LAYER
    saved = tmp_path / "saved" / "model.onnx"
    saved.parent.mkdir()
    peaks = json.loads(call("-c", OPTIMIZE, large, saved))
    print({name: f"{size / weights:.2f} of the weights" for name, size in peaks.items()})
    assert peaks["passes"] <= ALLOWED * weights
    assert peaks["saved"] <= ALLOWED * weights
    assert sorted(p.name for p in saved.parent.iterdir()) == ["model.onnx", "model.onnx.data"]
    model = read_model(saved)
    assert [node.op_type for node in model.graph] == ["Conv", "Relu"] * LAYERS
    for layer in (0, LAYERS - 1):
        require_folded(model, large, layer)


def test_compiled_into_a_bundle(large: Path, tmp_path: Path) -> None:
    folder = tmp_path / "engine"
    options = ("--verify", "off", "--no-time", "-t", "ort-cpu", "-o", folder)
    call("-m", "flatfold", "compile", large, *options)
    manifest = bundle.read_manifest(folder)
    assert sorted(manifest["files"]) == ["model.onnx", "model.onnx.data"]
    model = bundle.load_model(folder, manifest)
    require_folded(model, large, 1)
    run = "import flatfold, numpy as np, sys; e = flatfold.load(sys.argv[1]); "
    run += "assert np.isfinite(e(np.ones((1, 1280, 6, 6), np.float32))).all()"
    call("-c", run, folder)
