"""The verbs that answer at once, and the libraries that they must not load."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from flatfold.__main__ import run
from flatfold.backends import TARGETS
from flatfold.models import ZOO
from tests.cli.running import environment, flatfold

ENGINES = {"onnxruntime", "openvino", "pycuda", "tensorrt", "tensorrt_rtx"}
SDKS = {"torch", "onnx", "onnxscript", "onnxsim", "timm"} | ENGINES
LIBRARIES = SDKS | {"numpy", "onnx_ir", "safetensors"}
HELP_S, TARGETS_S = 0.3, 1.0

LOADED = """
import sys
from flatfold.__main__ import run
assert run(sys.argv[1:]) == 0
print(*sys.modules)
"""


def loaded_by(*args: str) -> set[str]:
    """The modules that a process has loaded after it ran `flatfold ARGS`."""
    command = [sys.executable, "-c", LOADED, *args]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize("args", [("--help",), ("compile", "--help"), ("--version",)])
def test_help_loads_no_library(args: tuple[str, ...]) -> None:
    assert not LIBRARIES & loaded_by(*args)


@pytest.mark.parametrize("verb", ["models", "targets"])
def test_lists_load_no_sdk(verb: str) -> None:
    assert not SDKS & loaded_by(verb)


@pytest.mark.parametrize(("words", "limit"), [("--help", HELP_S), ("targets", TARGETS_S)])
def test_answers_are_quick(words: str, limit: float, tmp_path: Path) -> None:
    def processor_seconds() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert flatfold(words, cwd=tmp_path).returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime

    # Its own time, the best of some: what else the machine does is no matter of ours.
    assert min(processor_seconds() for _ in range(5)) < limit


def test_models(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["models"]
    assert [entry["name"] for entry in found] == sorted(ZOO)
    assert run(["models", "*_b1g?"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["name", "repvgg_b1g2", "repvgg_b1g4"]
    assert lines[1].split()[1:3] == ["repvgg", "3x224x224"] and "Ding et al." in lines[1]


def test_targets(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["targets", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["targets"]
    assert [entry["name"] for entry in found] == list(TARGETS)
    assert run(["targets"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line[0] != " "]
    assert [line[0] for line in lines[1:]] == list(TARGETS)  # a long cell goes on in other lines
    assert lines[1 + list(TARGETS).index("ort-cpu")][1] == "yes"


@pytest.mark.parametrize(
    ("line", "offers"),
    [
        ("compile repvgg_b1", {"repvgg_b1", "repvgg_b1g2", "repvgg_b1g4"}),
        ("compile x", {"x.onnx", "xs/"}),
        ("compile repvgg_a0 --target ort", {n for n in TARGETS if n.startswith("ort")}),
        ("insp", {"inspect"}),
    ],
)
def test_completion(line: str, offers: set[str], tmp_path: Path) -> None:
    (tmp_path / "x.onnx").touch()
    (tmp_path / "x.txt").touch()
    (tmp_path / "xs").mkdir()
    asked = {
        "_FLATFOLD_COMPLETE": "complete_bash",
        "COMP_WORDS": f"flatfold {line}",
        "COMP_CWORD": str(len(line.split())),
    }
    assert set(flatfold(cwd=tmp_path, **asked).stdout.split()) == offers
