"""Engines of TensorRT for RTX, which are built here without a GPU; running one needs a GPU."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

import flatfold
from flatfold.backends.base import Engine
from flatfold.backends.store import bundle
from flatfold.backends.tensorrt.engine import _PRODUCT, trt, trt_rtx
from flatfold.backends.tensorrt.options import EDITIONS, profiles
from flatfold.errors import BuildError, InputError, TargetUnavailable, UnknownName
from flatfold.system.host import nvidia_gpu
from tests.backends.small_nets import image, make_model

pytestmark = pytest.mark.skipif(
    not EDITIONS["trt-rtx"].installed, reason="TensorRT for RTX is not installed"
)
GPU = nvidia_gpu()
OF_ONE = {"compute_capabilities": "89"}
without_gpu = pytest.mark.skipif(bool(GPU), reason=f"there is a GPU: {GPU}")


@pytest.fixture(scope="module")
def engine():
    with trt_rtx().build(make_model(), OF_ONE) as engine:
        yield engine


@pytest.fixture
def saved(engine: Engine, tmp_path: Path) -> Path:
    engine.save(tmp_path / "net")
    return tmp_path / "net"


def test_an_engine_is_built_and_says_what_it_consists_of(engine):
    assert [str(spec) for spec in engine.inputs] == ["float32[batch, 3, 9, 9]"]
    assert [spec.name for spec in engine.outputs] == ["y", "mean"]
    assert engine.precision == "fp32"
    assert engine.facts["compute_capabilities"] == [89]
    layers = engine.facts["layers"]
    assert layers and all(layer["name"] and layer["type"] for layer in layers)
    assert sum(layer["type"] == "correlation" for layer in layers) == 1  # the Relu is part of it


def test_tf32_is_told():
    with trt_rtx().build(make_model(), {**OF_ONE, "tf32": True}) as engine:
        assert engine.precision == "tf32"


def test_progress_is_said():
    said: list[str] = []
    trt_rtx().build(make_model(), OF_ONE, said.append).close()
    assert said[0] == "TensorRT for RTX: reading the graph"
    assert any(" of " in line for line in said[1:])


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        ("repvgg_a0", "fp16"),
        ("repvgg_a0", "bf16"),
        pytest.param("mobileone_s0", "fp16", marks=pytest.mark.slow),
        pytest.param("vanillanet_5", "fp16", marks=pytest.mark.slow),
    ],
)
def test_half_the_bits_are_half_the_plan_and_no_float_convolution(name, precision):
    graphs = [
        flatfold.optimize(name, target="trt-rtx", precision=p, verify="off").graph
        for p in ("fp32", precision)
    ]
    with trt_rtx().build(graphs[0], OF_ONE) as full, trt_rtx().build(graphs[1], OF_ONE) as half:
        assert half.precision == precision and full.precision == "fp32"
        products = [x for x in half.facts["layers"] if _PRODUCT.search(x["type"])]
        assert products and not any("Float" in x["datatypes"].split() for x in products)
        assert half.size <= 0.55 * full.size  # and what no weights are: code, names
        if name == "repvgg_a0":
            assert half.layers == full.layers and half.size <= 0.52 * full.size


@without_gpu
def test_where_there_is_no_gpu_it_is_built_for_several():
    with trt_rtx().build(make_model(), {}) as engine:
        assert engine.facts["compute_capabilities"] == [80, 86, 89, 120]
    state = trt_rtx().availability()
    assert state.available and not state.runs and "GPU" in state.hint


@without_gpu
def test_running_needs_a_gpu_and_says_so(engine):
    for run in (lambda: engine(image(1)), lambda: engine.bind({"image": image(1)})):
        with pytest.raises(TargetUnavailable, match="cannot run here: no NVIDIA GPU") as caught:
            run()
        assert caught.value.exit_code == 6


def test_wrong_feeds_are_told_before_a_gpu_is_asked_for(engine):
    with pytest.raises(InputError, match="no input 'x'"):
        engine.run({"x": image(1)})
    with pytest.raises(InputError, match="float64"):
        engine.run({"image": image(1).astype(np.float64)})


def test_saved_and_loaded_it_is_the_same_engine(engine, saved):
    loaded = bundle.load(saved)
    assert loaded.describe() == engine.describe()
    assert loaded.inputs == engine.inputs and loaded.outputs == engine.outputs
    loaded.save(saved.parent / "again")
    for file in saved.iterdir():
        assert file.read_bytes() == (saved.parent / "again" / file.name).read_bytes()


def test_an_engine_of_another_version_is_refused(saved):
    manifest = json.loads((saved / bundle.MANIFEST).read_text())
    manifest["versions"]["tensorrt_rtx_cu13"] = "1.0.0"
    (saved / bundle.MANIFEST).write_bytes(bundle._render(bundle._sealed(manifest)))
    with pytest.raises(InputError, match=r"built with tensorrt_rtx_cu13 1\.0\.0, here it is"):
        bundle.load(saved)


def test_a_changed_engine_file_is_refused(saved):
    plan = bytearray((saved / "engine.plan").read_bytes())
    plan[len(plan) // 2] ^= 1
    (saved / "engine.plan").write_bytes(plan)
    with pytest.raises(InputError, match=r"damaged: engine\.plan"):
        bundle.load(saved)


def graph(text: str) -> ir.Model:
    return ir.from_onnx_text(f'<ir_version: 10, opset_import: ["" : 20]>\n{text}')


def test_a_node_that_is_refused_is_named_with_where_it_comes_from():
    model = graph("net (float[1, 4] x) => (float[1, 4] y) { h = Relu (x)  y = Xyz (h) }")
    node = model.graph[1]
    node.name = "odd"
    node.metadata_props["flatfold.rewrite"] = "merge_branches"
    with pytest.raises(BuildError, match=r"cannot build node odd \(Xyz\)") as caught:
        trt_rtx().build(model, OF_ONE)
    assert caught.value.where == "node odd (Xyz), rewrite merge_branches"


def test_what_no_kernel_can_do_is_told_with_its_node():
    """Without a GPU, no matrix product can be built for Turing."""
    weight = ir.tensor(np.ones((4, 4), np.float32), name="w")
    text = '<ir_version: 10, opset_import: ["" : 20]>\nnet (float[1, 4] x) => (float[1, 4] y) '
    model = ir.from_onnx_text(text + "{ y = Gemm (x, w) }", initializers=[weight])
    model.graph[0].name = "product"
    with pytest.raises(BuildError, match="could not build") as caught:
        trt_rtx().build(model, {"compute_capabilities": "75"})
    assert caught.value.where == "node product (Gemm)"


OPEN = "net (float[batch, 3, h, w] x) => (float[batch, 3, h, w] y) { y = Relu (x) }"


def test_open_sizes_need_a_range():
    with pytest.raises(InputError, match="leaves more than its batch open") as caught:
        trt_rtx().build(graph(OPEN), OF_ONE)
    assert "option shapes" in caught.value.hint
    with trt_rtx().build(graph(OPEN), {**OF_ONE, "shapes": "x=1x3x8x8:1x3x9x9:4x3x64x64"}) as built:
        assert str(built.inputs[0]) == "float32[batch, 3, h, w]"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"compute_capabilities": "70"}, "expected some of 75, 80, 86, 89, .*found '70'"),
        ({"shapes": "y=1x3x9x9:1x3x9x9:1x3x9x9"}, "the model has no input 'y'"),
        ({"shapes": "image=1x3:2x3"}, "expected input=min:best:max"),
        ({"shapes": "image=4x3x9x9:2x3x9x9:1x3x9x9"}, "expected input=min:best:max"),
        ({"optimization_level": 6}, "expected -1 to 5, found 6"),
        ({"workspace_mib": -1}, "expected 0 or more, found -1"),
        ({"tf32": 1}, "expected bool, found 1"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(InputError, match=message):
        trt_rtx().build(make_model(), {**OF_ONE, **options})


def test_options_of_the_other_edition_are_unknown():
    with pytest.raises(UnknownName, match="unknown trt-rtx option 'timing_cache'"):
        trt_rtx().build(make_model(), {"timing_cache": "x"})


def test_a_build_that_takes_too_long_is_stopped():
    with pytest.raises(BuildError, match=r"longer than 0\.01 s"):
        trt_rtx().build(make_model(), {**OF_ONE, "time_limit": 0.01})


def test_shapes_are_read():
    assert profiles("") == {}
    assert profiles("a=1:2:3, b:0=1x2:1x2:1x2") == {
        "a": [[1], [2], [3]],
        "b:0": [[1, 2], [1, 2], [1, 2]],
    }


@pytest.mark.skipif(EDITIONS["trt"].installed, reason="TensorRT is installed")
def test_without_tensorrt_it_says_what_to_install():
    state = trt().availability()
    assert not state.available and state.hint == "pip install 'flatfold[trt]'"
    with pytest.raises(TargetUnavailable) as caught:
        trt().build(make_model(), {})
    assert caught.value.exit_code == 6 and "flatfold[trt]" in caught.value.hint
