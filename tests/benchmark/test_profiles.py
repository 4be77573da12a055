"""A worker tells the layers of its engine, or the operators of a module."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from torch import nn

from flatfold.backends.store import write_model
from flatfold.benchmark.measure import arrays
from flatfold.benchmark.measure.job import Job
from flatfold.benchmark.measure.process import Process
from flatfold.benchmark.report import Profile
from flatfold.frontend.pytorch.module import store_module
from tests.backends.small_nets import image, make_model

RUNS = 5


def profile(folder: Path, **job: Any) -> Profile | None:
    arrays.store(folder / "feeds.npz", {"image": image(2)})
    process = Process(Job("training", threads=1, feeds=str(folder / "feeds.npz"), **job), folder)
    try:
        process.start()
        return process.profile(RUNS)
    finally:
        process.close()


@pytest.mark.parametrize(
    ("target", "option"), [("ort-cpu", "intra_threads"), ("openvino", "threads")]
)
def test_an_engine_tells_its_layers(target: str, option: str, tmp_path: Path) -> None:
    model = make_model()
    for node in model.graph:
        node.name = f"node_{node.op_type}"
    write_model(model, tmp_path / "model.onnx")
    files = {"model": str(tmp_path / "model.onnx"), "saved": str(tmp_path / "saved")}
    found = profile(tmp_path, target=target, options={option: 1}, **files)
    assert found is not None and found.row == f"training {target}"
    assert 0 < sum(layer.seconds for layer in found.layers) < 1.5 * found.run_s
    (conv,) = (layer for layer in found.layers if "node_Conv" in layer.nodes)
    assert conv.nodes == ("node_Conv", "node_Relu") and conv.place == "" and conv.floor_s is None


def torch_job(folder: Path, compiled: bool) -> dict[str, Any]:
    store_module(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), folder / "module.pt")
    return {
        "target": "torch",
        "model": str(folder / "module.pt"),
        "inputs": ("image",),
        "outputs": ("y",),
        "precision": "fp32",
        "compiled": compiled,
    }


def test_a_module_tells_its_operators(tmp_path: Path) -> None:
    found = profile(tmp_path, **torch_job(tmp_path, compiled=False))
    assert found is not None and found.row == "training torch"
    seconds = {layer.name: layer.seconds for layer in found.layers}
    assert "aten::conv2d" in seconds and any("relu" in name for name in seconds)
    assert 0 < sum(seconds.values()) < 1.5 * found.run_s


def test_a_copy_and_a_compiled_module_have_no_layers(tmp_path: Path) -> None:
    from flatfold.benchmark.measure.worker import Worker

    arrays.store(tmp_path / "feeds.npz", {"image": image(1)})
    feeds = str(tmp_path / "feeds.npz")
    job = Job("training", threads=1, feeds=feeds, **torch_job(tmp_path, compiled=True))
    assert Worker(job).profile(RUNS) == {}
