"""Everything that a caller may call a model."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from torch import nn

from flatfold.errors import InputError
from flatfold.frontend import resolve
from tests.frontend.execution import content, from_text, run

GRAPH = "g (float[2] x) => (float[2] y) <float[2] w = {1.0, 2.0}> { y = Add (x, w) }"

FACTORIES = """
import torch
from torch import nn

ready = nn.ReLU()
number = 3

def convolution():
    return nn.Conv2d(3, 4, 1)

def broken():
    raise RuntimeError("no such backbone")

def nothing():
    return 3
"""


@pytest.fixture
def factories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module that can be imported only from the current folder."""
    (tmp_path / "my_nets.py").write_text(FACTORIES)
    (tmp_path / "my_broken_nets.py").write_text("import a_package_that_is_absent")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "my_nets", raising=False)
    return "my_nets"


def test_module() -> None:
    module = nn.Conv2d(3, 4, 1)
    source = resolve(module, input_shape=(3, 4, 4))
    assert (source.name, source.module) == ("Conv2d", module)
    assert [node.op_type for node in source.model.graph][-1] == "Conv"
    assert resolve(module, name="conv", input_shape=(3, 4, 4)).name == "conv"


def test_weights_go_into_a_copy_of_the_caller_s_module() -> None:
    module = nn.Linear(2, 2)
    before = module.weight.clone()
    weights = {"weight": torch.ones(2, 2), "bias": torch.zeros(2)}
    source = resolve(module, weights=weights, example_inputs=torch.ones(1, 2))
    np.testing.assert_array_equal(
        run(source.model, {"input": np.ones((1, 2), np.float32)})[0], [[2, 2]]
    )
    assert source.module is not None and source.module is not module
    assert torch.equal(module.weight, before)


@pytest.mark.parametrize("as_text", [False, True])
def test_file(tmp_path: Path, as_text: bool) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(ir.serde.serialize_model(from_text(GRAPH)), path)
    source = resolve(str(path) if as_text else path)
    assert (source.name, source.module) == ("net", None)
    assert [node.op_type for node in source.model.graph] == ["Add"]


@pytest.mark.parametrize("convert", [ir.serde.serialize_model, lambda model: model])
def test_graph_in_memory_is_not_modified(convert: Any) -> None:
    given = convert(from_text(GRAPH))
    read = (lambda: content(given)) if isinstance(given, ir.Model) else given.SerializeToString
    before = read()
    model = resolve(given).model
    model.graph.initializers["w"].name = "renamed"
    model.graph.node(0).name = "renamed too"
    assert read() == before


def test_factory_in_the_current_folder(factories: str) -> None:
    path = list(sys.path)
    source = resolve(f"{factories}:convolution", input_shape=(3, 4, 4))
    assert source.name == "convolution" and isinstance(source.module, nn.Conv2d)
    again = resolve(f"{factories}:convolution", input_shape=(3, 4, 4))
    assert content(source.model) == content(again.model)
    assert isinstance(resolve(f"{factories}:ready", input_shape=(3, 4, 4)).module, nn.ReLU)
    assert sys.path == path


@pytest.mark.parametrize(
    ("reference", "cause", "hint"),
    [
        ("my_net:convolution", "No module named 'my_net'", "my_nets"),
        ("my_broken_nets:net", "No module named 'a_package_that_is_absent'", ""),
        ("my_nets:convolutions", "has no 'convolutions'", "did you mean convolution"),
        ("my_nets:broken", "cannot build: RuntimeError: no such backbone", ""),
        ("my_nets:nothing", "expected an nn.Module, found int", ""),
        ("my_nets:number", "cannot build: TypeError", ""),
    ],
)
def test_factory_that_does_not_work(factories: str, reference: str, cause: str, hint: str) -> None:
    with pytest.raises(InputError, match=cause) as raised:
        resolve(reference, input_shape=(3, 4, 4))
    assert hint in raised.value.hint
    assert raised.value.where == reference


@pytest.mark.skipif(importlib.util.find_spec("timm") is not None, reason="timm is installed")
def test_missing_timm_is_reported_with_a_hint() -> None:
    with pytest.raises(InputError, match="timm is not installed") as raised:
        resolve("timm:resnet18")
    assert raised.value.hint == "pip install timm"


@pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="timm is not installed")
def test_timm_model_has_an_input_shape() -> None:
    source = resolve("timm:repvgg_a0")
    assert source.name == "repvgg_a0"
    assert source.model.graph.inputs[0].shape == ir.Shape([1, 3, 224, 224])
    with pytest.raises(InputError, match="timm has no model") as raised:
        resolve("timm:repvgg_a9")
    assert "repvgg_a" in raised.value.hint


@pytest.mark.parametrize(
    ("model", "cause"),
    [
        ("repvgg", "found 'repvgg'"),
        ("absent.onnx", "no such file"),
        (3, "found int"),
        (nn.Conv2d, "found type"),
    ],
)
def test_what_is_no_model(model: Any, cause: str) -> None:
    with pytest.raises(InputError, match=cause):
        resolve(model)


@pytest.mark.parametrize("options", [{"dynamic_batch": True}, {"weights": {}}])
def test_options_for_modules_are_refused_with_a_graph(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"{next(iter(options))} applies to PyTorch modules"):
        resolve(from_text(GRAPH), **options)


def test_import_is_light() -> None:
    modules = "pytorch.export", "pytorch.weights", "loading.load", "loading.onnxsim"
    names = ["source", *modules, "canonicalization.canonicalize"]
    code = (
        f"import sys, {', '.join(f'flatfold.frontend.{name}' for name in names)}\n"
        "heavy = {'torch', 'onnxruntime', 'onnxscript', 'onnxsim', 'timm'} & sys.modules.keys()\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
