"""No case of ONNX's backend suite is lost by putting flatfold in front of ONNX Runtime."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

# What convolutional networks are made of, and what their exporters write around it.
NETWORKS = (
    "conv|batchnorm|pool|pad|resize|upsample|depth|shuffle|linear|gemm|matmul|relu|sigmoid|swish"
    "|hardsw|gelu|softmax|^test_(add|sub|mul|div|neg|sum|mean|clip|concat|slice|split|gather_"
    "|reshape|flatten|transpose|squeeze|unsqueeze|identity|expand|reduce_mean|constant|cast_FLOAT"
    "|shape|where|tanh|dropout|instancenorm|layer_norm|group_norm|if|loop|scan)"
)


def ran(tmp_path: Path, *arguments: str) -> tuple[str, dict[str, Any]]:
    """What the command printed, and the outcomes."""
    path = tmp_path / "outcomes.json"
    command = [sys.executable, "-m", "tests.conformance", "--json", str(path), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, json.loads(path.read_text("utf-8"))


def assert_none_left(found: dict[str, Any], cases: int, passing: int) -> None:
    plain, through = found["onnxruntime"], found["flatfold"]
    assert plain.keys() == through.keys() and len(plain) >= cases
    passes = [name for name, outcome in plain.items() if outcome["verdict"] == "pass"]
    assert len(passes) >= passing, "the adapter itself lost some"
    assert all(through[name]["verdict"] == "pass" for name in passes)
    assert all(outcome["read"] for outcome in through.values())
    assert {outcome["verdict"] for outcome in through.values()} <= {"pass", "error", "wrong"}


def test_what_networks_are_made_of(tmp_path: Path) -> None:
    printed, found = ran(tmp_path, "--jobs", "1", "--match", NETWORKS)
    assert_none_left(found, 700, 600)
    assert sum(outcome["changed"] for outcome in found["flatfold"].values()) >= 100
    assert re.search(r"left the pass set +0$", printed, re.MULTILINE)


@pytest.mark.slow
def test_every_case(tmp_path: Path) -> None:
    _, found = ran(tmp_path)
    assert_none_left(found, 2000, 1500)


def test_the_page_names_the_versions_that_make_installs() -> None:
    """Newer packages have other counts: whoever installs them runs the suite again."""
    page = (ROOT / "docs/conformance.md").read_text("utf-8")
    pins = (ROOT / "constraints.txt").read_text("utf-8")
    for package in ("onnx", "onnxruntime"):
        newest = re.findall(rf"^{package}==([\d.]+)", pins, re.MULTILINE)[-1]
        assert f"{package} {newest}" in page
