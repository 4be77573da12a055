"""Backend, Engine and the checks of inputs, with a real engine; and the table of targets."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import onnx_ir as ir
import pytest

import flatfold.backends as backends
from flatfold.backends import TARGETS, availability_table, best_target, load_backend
from flatfold.backends.base import Engine, precision_of
from flatfold.backends.tensors import TensorSpec, checked_feeds
from flatfold.errors import InputError, TargetError, TargetUnavailable, UnknownName
from tests.backends.small_nets import image, make_model, reference

PAIR = (TensorSpec("a", "float32", ("n", 2)), TensorSpec("b", "int64", ("n", None)))


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with load_backend("ort-cpu").build(make_model(), {"intra_threads": 1}) as engine:
        yield engine


def test_interface_is_that_of_the_model(engine: Engine) -> None:
    assert engine.target == "ort-cpu"
    assert engine.precision == "fp32"
    assert engine.inputs == (TensorSpec("image", "float32", ("batch", 3, 9, 9)),)
    assert [str(spec) for spec in engine.outputs] == [
        "float32[batch, 16, 9, 9]",
        "float32[batch, 16]",
    ]


@pytest.mark.parametrize(
    ("feeds", "expected"),
    [
        ({}, "input 'image' (float32[batch, 3, 9, 9]) is missing"),
        ({"imgae": image(1)}, "the engine has no input 'imgae'"),
        ({"image": image(1), "mask": image(1)}, "the engine has no input 'mask'"),
        ({"image": image(1).astype(np.float64)}, "[batch, 3, 9, 9], found float64[1, 3, 9, 9]"),
        ({"image": image(1).astype(">f4")}, "[batch, 3, 9, 9], found >f4[1, 3, 9, 9]"),
        ({"image": image(1)[0]}, "expected float32[batch, 3, 9, 9], found float32[3, 9, 9]"),
        ({"image": image(1)[:, :2]}, "found float32[1, 2, 9, 9]"),
        ({"image": [[1.0]]}, "expected an array float32[batch, 3, 9, 9], found a builtins.list"),
    ],
)
def test_bad_feeds_say_expected_and_found(
    engine: Engine, feeds: dict[str, np.ndarray], expected: str
) -> None:
    with pytest.raises(InputError) as caught:
        engine.run(feeds)
    assert expected in caught.value.cause


def test_a_named_size_is_the_same_everywhere() -> None:
    feeds = {"a": np.zeros((2, 2), np.float32), "b": np.zeros((3, 1), np.int64)}
    with pytest.raises(InputError) as caught:
        checked_feeds(feeds, PAIR)
    assert caught.value.hint == "n is 2 on axis 0 of 'a', 3 here"
    feeds["b"] = np.zeros((2, 5), np.int64)
    assert checked_feeds(feeds, PAIR)["b"] is feeds["b"]


def test_feeds_are_copied_only_when_they_must_be() -> None:
    scalar = np.array(1.0, np.float32)
    assert checked_feeds({"s": scalar}, [TensorSpec("s", "float32", ())])["s"].shape == ()
    strided = np.zeros((2, 4), np.float32)[:, ::2]
    checked = checked_feeds({"a": strided}, PAIR[:1])["a"]
    assert checked.flags.c_contiguous and not np.shares_memory(checked, strided)


def test_call_takes_positions_or_names_and_gives_a_tuple(engine: Engine) -> None:
    x = image(2)
    by_position, by_name = engine(x), engine(image=x)
    assert isinstance(by_position, tuple) and len(by_position) == 2
    for first, second in zip(by_position, by_name, strict=True):
        np.testing.assert_array_equal(first, second)


def test_call_gives_a_single_output_bare() -> None:
    text = '<ir_version: 10, opset_import: ["" : 20]> g (float[n] x) => (float[n] y) {y = Neg(x)}'
    with load_backend("ort-cpu").build(ir.from_onnx_text(text), {}) as engine:
        np.testing.assert_array_equal(engine(np.array([1, 2], np.float32)), [-1, -2])


def test_call_refuses_too_many_and_doubled_inputs(engine: Engine) -> None:
    with pytest.raises(InputError, match="takes 1 inputs, found 2"):
        engine(image(1), image(1))
    with pytest.raises(InputError, match="given twice"):
        engine(image(1), image=image(1))


def test_torch_in_torch_out(engine: Engine) -> None:
    torch = pytest.importorskip("torch")
    x = image(2)
    y, mean = engine(torch.from_numpy(x).requires_grad_())
    assert isinstance(y, torch.Tensor) and not y.requires_grad
    expected_y, expected_mean, bound = reference(x)
    assert np.abs(y.numpy() - expected_y).max() <= bound
    assert np.abs(mean.numpy() - expected_mean).max() <= bound
    with pytest.raises(InputError, match="'image'"):
        engine(torch.from_numpy(x).to(torch.bfloat16))


def test_numpy_does_not_import_torch() -> None:
    _in_fresh_process(
        "from tests.backends.small_nets import image, make_model\n"
        "from flatfold.backends import load_backend\n"
        "load_backend('ort-cpu').build(make_model(), {})(image(1))\n"
        "assert 'torch' not in sys.modules"
    )


def test_a_closed_engine_says_so() -> None:
    with load_backend("ort-cpu").build(make_model(), {}) as engine:
        outputs = engine.run({"image": image(1)})
    kept = {name: array.copy() for name, array in outputs.items()}
    engine.close()
    for use in (lambda: engine.run({"image": image(1)}), lambda: engine.save("nowhere")):
        with pytest.raises(TargetError, match="engine is closed"):
            use()
    for name, array in outputs.items():  # they outlive the session that made them
        np.testing.assert_array_equal(array, kept[name])


def test_an_engine_is_not_pickled_by_accident(engine: Engine) -> None:
    with pytest.raises(TypeError, match=r"use save\(folder\)"):
        pickle.dumps(engine)


@pytest.mark.parametrize(
    ("types", "precision"),
    [
        (["FLOAT"], "fp32"),
        (["FLOAT16", "FLOAT", "INT64"], "fp16+fp32"),
        (["BFLOAT16"], "bf16"),
        (["INT64"], "fp32"),  # no weight is a float: the input is
    ],
)
def test_precision_is_that_of_the_weights(types: list[str], precision: str) -> None:
    model = make_model()
    model.graph.initializers.clear()
    for index, name in enumerate(types):
        tensor = ir.tensor([1], dtype=ir.DataType[name], name=f"w{index}")
        model.graph.register_initializer(ir.Value(name=f"w{index}", const_value=tensor))
    for value in model.graph.initializers.values():
        value.dtype = value.const_value.dtype if value.const_value else None
    assert precision_of(model) == precision


def test_unknown_target_suggests_the_near_one() -> None:
    with pytest.raises(UnknownName) as caught:
        load_backend("ort-cup")
    assert caught.value.near[0] == "ort-cpu"


def test_every_target_answers_and_the_best_is_available() -> None:
    table = availability_table()
    assert list(table) == list(TARGETS)
    assert all(entry.reason and (entry.available or entry.hint) for entry in table.values())
    assert all(load_backend(name).name == name for name in TARGETS)
    assert table[best_target()].available


def test_no_target_at_all_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(TargetUnavailable) as caught:
        best_target()
    assert "ort-cpu: onnxruntime is not installed" in caught.value.where
    with pytest.raises(TargetUnavailable, match="onnxruntime is not installed"):
        load_backend("ort-cpu").build(make_model(), {})


def test_availability_imports_no_sdk() -> None:
    _in_fresh_process(
        "from flatfold.backends import availability_table, best_target\n"
        "availability_table(); best_target()\n"
        "import flatfold.backends.store.bundle, flatfold.timing\n"
        "sdks = {'onnxruntime', 'openvino', 'tensorrt', 'tensorrt_rtx', 'pycuda'}\n"
        "loaded = (sdks | {'torch', 'onnxscript', 'onnx', 'onnx_ir'}) & set(sys.modules)\n"
        "assert not loaded, loaded"
    )


def _in_fresh_process(code: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_targets_are_written_out() -> None:
    assert all(":" in place for place in backends.TARGETS.values())
