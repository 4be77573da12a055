"""No case of ONNX's backend suite is lost by putting flatfold in front of ONNX Runtime.

Nor between layers, where `optimize` has something to rewrite: it once took zeros put beside a
value with a bias for padding of it.
"""

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
    "conv(?!_[af])|batchnorm|pool|pad|resize|upsample|depth|gemm|matmul|[lk]yrelu|instancenorm"
    "|^test_(add|sub|mul|div|neg|sum|mean|clip|concat|slice|split|gather_|reshape|flatten"
    "|transpose|squeeze|unsqueeze|identity|expand|reduce_mean|constant|shape|relu|if|loop)"
)


def ran(tmp_path: Path, *arguments: str) -> tuple[str, dict[str, Any]]:
    """What the command printed, and the outcomes."""
    path = tmp_path / "outcomes.json"
    command = [sys.executable, "-m", "tests.conformance", "--json", str(path), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, json.loads(path.read_text("utf-8"))


def assert_none_left(found: dict[str, Any], cases: int, passing: int) -> None:
    plain, through, between = (found[name] for name in ("onnxruntime", "flatfold", "between"))
    assert plain.keys() == through.keys() == between.keys() and len(plain) >= cases
    passes = [name for name, outcome in plain.items() if outcome["verdict"] == "pass"]
    assert len(passes) >= passing, "the adapter itself lost some"
    assert all(through[name]["verdict"] == "pass" for name in passes)
    assert all(between[name]["verdict"] == "pass" for name in passes)
    assert all(outcome["read"] for outcome in through.values())
    assert {outcome["verdict"] for outcome in through.values()} <= {"pass", "error", "wrong"}
    assert sum(outcome["rewritten"] for outcome in between.values()) >= cases // 4


def test_what_networks_are_made_of(tmp_path: Path) -> None:
    printed, found = ran(tmp_path, "--jobs", "1", "--draws", "1", "--match", NETWORKS)
    assert_none_left(found, 400, 300)
    assert sum(outcome["changed"] for outcome in found["flatfold"].values()) >= 40
    assert "left the pass set: 0" in printed.splitlines()


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
