"""`flatfold compile` for the targets that need more than the CPU."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flatfold.__main__ import run
from flatfold.backends.tensorrt.options import EDITIONS
from flatfold.system.host import nvidia_gpu
from tests.cli.running import write_onnx

pytestmark = pytest.mark.skipif(
    not EDITIONS["trt-rtx"].installed, reason="TensorRT for RTX is not installed"
)


@pytest.fixture
def net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    write_onnx(tmp_path / "net.onnx")
    return "net.onnx"


@pytest.mark.skipif(bool(nvidia_gpu()), reason="there is a GPU, and so a latency")
def test_an_engine_for_another_machine_is_built_but_not_timed(net, capsys):
    args = ["compile", net, "-t", "trt-rtx", "-O", "compute_capabilities=86,89", "--json"]
    assert run(args) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["latency"] is None
    assert printed["not_timed"] == "builds here, but does not run: no NVIDIA GPU was found"
    assert printed["equivalence"]["verdict"] == "certified"
    assert printed["engine_layers"] > 0
    manifest = json.loads(Path(printed["folder"], "manifest.json").read_text())
    assert manifest["target"] == "trt-rtx"
    facts = manifest["engine"]["facts"]
    assert facts["compute_capabilities"] == [86, 89]
    assert len(facts["layers"]) == printed["engine_layers"]


def test_the_layers_of_the_engine_are_told(net, capsys):
    assert run(["compile", net, "-t", "trt-rtx", "--no-time"]) == 0
    assert "engine    " in capsys.readouterr().out


@pytest.mark.skipif(EDITIONS["trt"].installed, reason="TensorRT is installed")
def test_without_tensorrt_nothing_is_begun(net, capsys, tmp_path):
    assert run(["compile", net, "-t", "trt"]) == 6
    said = capsys.readouterr().err
    assert "TensorRT is not installed" in said and "pip install 'flatfold[trt]'" in said
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("compute_capabilites=89", "did you mean compute_capabilities?"),
        ("tf32=yes", "option 'tf32': expected true or false, found 'yes'"),
        ("compute_capabilities=12", "option 'compute_capabilities': expected some of 75"),
    ],
)
def test_options_are_checked(net, capsys, tmp_path, option, message):
    assert run(["compile", net, "-t", "trt-rtx", "-O", option]) in (2, 3)
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]
