"""Features of OpenVINO that other targets do not have; test_targets.py has the common tests."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

import flatfold
from flatfold.backends.openvino import engine as openvino
from flatfold.backends.openvino.build import ENGINE_FILE, OpenvinoOptions, import_engine
from flatfold.backends.openvino.engine import Openvino, OpenvinoEngine
from flatfold.backends.store import bundle
from flatfold.errors import BuildError, InputError, TargetError, TargetUnavailable, UnknownName
from tests.backends.small_nets import image, make_model, reference
from tests.backends.suite import HEAD

pytest.importorskip("openvino")

ROOT = Path(__file__).parents[2]


def build(model: ir.Model, **options: object) -> OpenvinoEngine:
    return Openvino().build(model, {"threads": 1, **options})


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    with build(make_model()) as engine:
        engine.save(tmp_path / "net")
    return tmp_path / "net"


def asked(compiled: object, *names: str) -> list[str]:
    return [str(compiled.get_property(name)) for name in names]  # type: ignore[attr-defined]


def test_options_reach_the_compiled_model_and_outlive_saving(tmp_path: Path) -> None:
    options = {"threads": 2, "streams": 2, "performance": "throughput"}
    names = ("INFERENCE_NUM_THREADS", "NUM_STREAMS", "PERFORMANCE_HINT", "EXECUTION_MODE_HINT")
    expected = ["2", "2", "THROUGHPUT", "ExecutionMode.ACCURACY"]
    with build(make_model(), **options) as engine:
        assert asked(engine._compiled, *names) == expected
        engine.save(tmp_path / "net")
    with bundle.load(tmp_path / "net") as loaded:
        assert isinstance(loaded, OpenvinoEngine)
        assert asked(loaded._compiled, *names) == expected


def test_strict_is_float32_whatever_the_processor_has() -> None:
    """By default OpenVINO uses bfloat16 on processors that support it, on importing, too."""
    with build(make_model()) as engine:
        assert asked(engine._compiled, "INFERENCE_PRECISION_HINT") == ["<Type: 'float32'>"]
        assert engine.precision == "fp32"


def test_the_precision_is_the_one_that_runs() -> None:
    x = image(4)
    y, _, bound = reference(x)
    with build(make_model(), inference_precision="bf16") as engine:
        error = np.abs(engine(x)[0] - y).max()
    rounded = error > 4 * bound
    assert engine.precision == ("bf16" if rounded else "fp32")  # not every processor has it


def test_imported_without_its_settings_an_engine_would_be_another() -> None:
    """Why the settings are given again: if this fails, that is no longer needed."""
    with build(make_model(), threads=1, performance="throughput") as engine:
        content = engine._content
    other = import_engine(content, OpenvinoOptions())
    assert asked(other, "PERFORMANCE_HINT") == ["LATENCY"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"threads": -1}, "'threads': expected 0 or more, found -1"),
        ({"streams": -1}, "'streams': expected 0 or more"),
        ({"inference_precision": "f16"}, "expected one of f32, bf16, found 'f16'"),
        ({"performance": "fast"}, "expected one of latency, throughput, found 'fast'"),
        ({"time_limit": 0.0}, "'time_limit': expected more than 0"),
        ({"time_limit": "60"}, "'time_limit': expected float, found '60'"),
    ],
)
def test_option_values_are_checked(options: dict[str, object], says: str) -> None:
    with pytest.raises(InputError) as caught:
        build(make_model(), **options)
    assert says in caught.value.cause


def test_a_build_that_never_ends_is_stopped() -> None:
    with pytest.raises(BuildError, match=r"longer than 0\.01 s") as caught:
        build(make_model(), time_limit=0.01)
    assert "time_limit" in caught.value.hint


def test_a_crash_of_the_sdk_is_a_build_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino, "BUILDER", "tests.system.builders:crashes")
    with pytest.raises(BuildError, match="SIG"):
        build(make_model())


@pytest.mark.parametrize("dtype", ["int64", "uint64"])
def test_integers_that_openvino_would_clip_are_refused(dtype: str) -> None:
    model = ir.from_onnx_text(HEAD + f"g ({dtype}[n] i) => ({dtype}[n] j) {{ j = Add(i, i) }}")
    with build(model) as engine:
        most = np.array([2**30 - 1], dtype)
        np.testing.assert_array_equal(engine(most), 2 * most)
        with pytest.raises(InputError, match="expected 32-bit values, found 1 to 1099511627776"):
            engine(np.array([1, 2**40], dtype))
        assert engine(np.zeros(0, dtype)).shape == (0,)


def test_strings_are_refused_before_anything_is_built() -> None:
    text = HEAD + "g (string[n] x) => (string[n] y) { y = Identity(x) }"
    with pytest.raises(BuildError, match="found strings for 'x'"):
        build(ir.from_onnx_text(text))


def test_initializers_that_are_inputs_are_constants_here() -> None:
    text = HEAD + "g (float[2] x, float[2] w = {2, 3}) => (float[2] y) { y = Mul(x, w) }"
    ones = np.ones(2, np.float32)
    with build(ir.from_onnx_text(text)) as engine:
        np.testing.assert_array_equal(engine(ones), [2, 3])
        with pytest.raises(InputError, match="no input 'w'"):
            engine(ones, w=ones)


def test_one_value_may_be_several_outputs() -> None:
    text = HEAD + (
        "g (float[n] x) => (float[n] a, float[n] b, float[2] k) <float[2] k = {1, 2}>"
        "{ t = Relu(x)  a = Identity(t)  b = Identity(t) }"
    )
    with build(ir.from_onnx_text(text)) as engine:
        found = engine.run({"x": np.array([-1, 2], np.float32)})
    assert {name: list(y) for name, y in found.items()} == {"a": [0, 2], "b": [0, 2], "k": [1, 2]}


def test_a_failing_run_names_the_cause_and_spoils_nothing() -> None:
    text = HEAD + "g (float[n] x) => (float[3] y) <float[3] w = {1, 2, 3}> { y = Add(x, w) }"
    with build(ir.from_onnx_text(text)) as engine:
        with pytest.raises(TargetError, match="could not run the model on these inputs"):
            engine(np.zeros(5, np.float32))
        np.testing.assert_array_equal(engine(np.ones(3, np.float32)), [2, 3, 4])


def test_fused_layers_are_counted() -> None:
    text = HEAD + "g (float[2, 3] x) => (float[2, 3] y) { r = Relu(x)  y = Exp(r) }"
    with build(ir.from_onnx_text(text)) as engine:
        assert 1 <= (engine.layers or 0) <= 2


@pytest.mark.parametrize("changed", ["openvino", "processor"])
def test_made_elsewhere_is_rebuilt_and_said(
    saved: Path, changed: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    if changed == "processor":
        monkeypatch.setattr(openvino, "processor", lambda: "another")
    else:
        manifest = json.loads((saved / bundle.MANIFEST).read_text())
        manifest["versions"]["openvino"] = "2025.0.0"
        (saved / bundle.MANIFEST).write_bytes(bundle._render(bundle._sealed(manifest)))
    expected, _, bound = reference(image(2))
    with bundle.load(saved) as loaded:
        assert np.abs(loaded(image(2))[0] - expected).max() <= bound
    assert "rebuilding the engine from model.onnx: it was built" in caplog.text


def test_what_is_too_large_to_save_is_rebuilt(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openvino, "EXTERNAL_ABOVE", 100)
    with build(make_model()) as engine:
        engine.save(tmp_path / "net")
    assert ENGINE_FILE not in {path.name for path in (tmp_path / "net").iterdir()}
    bundle.load(tmp_path / "net").close()
    assert "the engine was too large to save" in caplog.text


def test_without_openvino_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(TargetUnavailable, match="openvino is not installed") as caught:
        build(make_model())
    assert "flatfold[openvino]" in caught.value.hint


def test_an_unknown_option_suggests_the_near_one() -> None:
    with pytest.raises(UnknownName) as caught:
        build(make_model(), thread=2)
    assert caught.value.near[0] == "threads"


def test_with_less_precision_a_strict_engine_is_run_first():
    """On a processor without bfloat16 both run in float32: the strict one is built all the same."""
    said: list[str] = []
    options = {"inference_precision": "bf16"}
    with flatfold.compile(
        make_model(), "openvino", engine_options=options, progress=said.append
    ) as engine:
        assert said.count("building for openvino") == 2
        strict = engine.manifest["strict_engine_equivalence"]
        assert strict["verdict"] == "sampled" and strict["bound"] < 1e-5
        assert engine.manifest["engine_equivalence"]["verdict"] == "sampled"
    with flatfold.compile(make_model(), "openvino") as engine:
        assert "strict_engine_equivalence" not in engine.manifest


CTRL_C = """
import signal
from flatfold.backends.openvino.engine import Openvino
from tests.backends.small_nets import make_model

signal.signal(signal.SIGINT, signal.default_int_handler)
one, two = (Openvino().build(make_model(), {"threads": 1}) for _ in range(2))
one.close()
two.close()
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("interrupted")
"""


def test_ctrl_c_after_engines_that_were_closed_in_the_order_of_building() -> None:
    """OpenVINO gives a thread a stack for signals, which may be gone when a signal arrives."""
    done = subprocess.run([sys.executable, "-c", CTRL_C], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "interrupted\n"), done.stderr
