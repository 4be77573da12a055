"""What holds for the engines of every target that builds here, whether they run here or not.

Running is in test_targets_running.py. What needs an NVIDIA GPU has the mark `gpu`.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from flatfold.backends import load_backend
from flatfold.backends.base import Engine
from flatfold.backends.store import bundle
from flatfold.errors import BuildError, InputError, UnknownName
from tests.backends.small_nets import Array, content, image, make_model
from tests.backends.suite import HEAD, build, needed, targets

CHOOSES_BY_TIME = ("trt", "trt-rtx")  # which kernels an engine has depends on how long they took


@pytest.fixture(scope="module", params=targets("build"))
def target(request: pytest.FixtureRequest) -> str:
    return needed(request.param, "build")


@pytest.fixture(scope="module")
def built(target: str) -> Iterator[Engine]:
    with build(target) as engine:
        yield engine


def test_the_interface_is_that_of_the_graph(built: Engine, target: str) -> None:
    assert [(s.name, str(s)) for s in built.inputs] == [("image", "float32[batch, 3, 9, 9]")]
    assert [(s.name, str(s)) for s in built.outputs] == [
        ("y", "float32[batch, 16, 9, 9]"),
        ("mean", "float32[batch, 16]"),
    ]
    assert (built.target, built.precision) == (target, "fp32")
    assert json.dumps(built.describe())
    assert built.layers is None or built.layers > 0


def test_the_model_is_left_alone(target: str) -> None:
    model = make_model()
    before = ir.to_proto(model).SerializeToString()
    with build(target, model) as engine:
        assert ir.to_proto(model).SerializeToString() == before
        model.graph[0].name = "edited"
        assert "edited" not in {node.name for node in engine.model.graph}


def test_equal_engines_are_equal_bytes(built: Engine, target: str, tmp_path: Path) -> None:
    built.save(tmp_path / "one")
    with bundle.load(tmp_path / "one") as loaded:
        assert loaded.inputs == built.inputs and loaded.outputs == built.outputs
        assert loaded.describe() == built.describe() and loaded.precision == built.precision
        loaded.save(tmp_path / "again")
    assert content(tmp_path / "one") == content(tmp_path / "again")
    if target in CHOOSES_BY_TIME:
        return
    with build(target) as other:
        other.save(tmp_path / "two")
    assert content(tmp_path / "one") == content(tmp_path / "two")


def test_a_changed_file_is_refused(built: Engine, tmp_path: Path) -> None:
    built.save(tmp_path / "net")
    for name, right in content(tmp_path / "net").items():
        wrong = bytearray(right)
        wrong[len(wrong) // 2] ^= 1
        (tmp_path / "net" / name).write_bytes(wrong)
        with pytest.raises(InputError, match="damaged"):
            bundle.load(tmp_path / "net")
        (tmp_path / "net" / name).write_bytes(right)
    bundle.load(tmp_path / "net").close()


def test_what_the_sdk_does_not_know_is_a_build_error(target: str) -> None:
    model = ir.from_onnx_text(HEAD + "g (float[2] x) => (float[2] y) { y = NoSuchOp(x) }")
    with pytest.raises(BuildError, match="NoSuchOp") as caught:
        build(target, model)
    assert caught.value.where and caught.value.hint


def test_an_unknown_option_names_the_target(target: str) -> None:
    with pytest.raises(UnknownName, match=f"unknown {target} option 'nosuch'"):
        load_backend(target).build(make_model(), {"nosuch": 1})


def test_an_engine_is_not_pickled_by_accident(built: Engine) -> None:
    with pytest.raises(TypeError, match=r"use save\(folder\)"):
        pickle.dumps(built)


@pytest.mark.parametrize(
    ("name", "array", "says"),
    [
        ("picture", image(1), "no input 'picture'"),
        ("image", image(1).astype(np.float64), "expected float32"),
        ("image", image(1)[0], "needs 4 dimensions"),
        ("image", image(1)[..., :8], "axis 3 is fixed to 9"),
    ],
)
def test_a_wrong_feed_is_told(built: Engine, name: str, array: Array, says: str) -> None:
    with pytest.raises(InputError) as caught:
        built.run({name: array})
    assert says in str(caught.value)
