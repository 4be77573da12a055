"""Engines of ONNX Runtime on the processor, compared with float64."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading

import numpy as np
import onnx_ir as ir
import pytest

from flatfold.backends.onnxruntime import cpu
from flatfold.backends.onnxruntime.cpu import OrtCpu, OrtEngine
from flatfold.backends.onnxruntime.session import open_session
from flatfold.backends.store import model_file
from flatfold.backends.tensors import TensorSpec
from flatfold.errors import BuildError, InputError, TargetError, UnknownName
from tests.backends.small_nets import assert_right, image, make_model

HEAD = '<ir_version: 10, opset_import: ["" : 20]> '


def build(model: ir.Model, **options: object) -> OrtEngine:
    return OrtCpu().build(model, {"intra_threads": 1, **options})


def test_a_graph_in_float16_is_opened_once(monkeypatch: pytest.MonkeyPatch) -> None:
    levels: list[str] = []

    def counted(*args: object, **more: object) -> object:
        levels.append(args[1].graph_optimization)  # type: ignore[attr-defined]
        return open_session(*args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(cpu, "open_session", counted)
    text = "net (float16[1, 3, 9, 9] x) => (float16[1, 4, 9, 9] y) {y = Conv (x, weight)}"
    weight = np.random.default_rng(0).standard_normal((4, 3, 1, 1)).astype(np.float16)
    model = ir.from_onnx_text(HEAD + text, initializers=[ir.tensor(weight, name="weight")])
    x = image(1).astype(np.float16)
    with build(model) as engine:
        exact = np.einsum("oi,nihw->nohw", weight[:, :, 0, 0].astype(float), x.astype(float))
        assert np.abs(engine(x) - exact).max() <= 2.0**-11 * np.abs(exact).max()  # one rounding
        assert engine.precision == "fp32"  # that is how ONNX Runtime computes it here
    assert levels == ["all"]


@pytest.mark.parametrize("level", ["disable", "basic", "extended", "all"])
def test_matches_float64_at_every_level_and_batch(level: str) -> None:
    with build(make_model(), graph_optimization=level) as engine:
        assert_right(engine, image(1))
        assert_right(engine, image(8))


@pytest.mark.parametrize(
    "options",
    [
        {"intra_threads": 0},
        {"intra_threads": 2, "spinning": False},
        {"inter_threads": 2},
        {"arena": False},
    ],
)
def test_every_option_keeps_the_result(options: dict[str, object]) -> None:
    with OrtCpu().build(make_model(), options) as engine:
        assert_right(engine, image(2))
        assert engine.describe()["options"].items() >= options.items()


def test_options_reach_the_session() -> None:
    with build(make_model(), intra_threads=2, spinning=False, arena=False) as engine:
        settings = engine._live().get_session_options()
    assert settings.intra_op_num_threads == 2
    assert settings.enable_cpu_mem_arena is False
    assert settings.get_session_config_entry("session.intra_op.allow_spinning") == "0"


def test_unknown_option_suggests_the_near_one() -> None:
    with pytest.raises(UnknownName) as caught:
        build(make_model(), intra_thread=2)
    assert caught.value.near[0] == "intra_threads"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"intra_threads": "2"}, "expected int, found '2'"),
        ({"intra_threads": True}, "expected int, found True"),
        ({"intra_threads": -1}, "expected 0 or more, found -1"),
        ({"spinning": 0}, "expected bool, found 0"),
        ({"graph_optimization": "most"}, "one of disable, basic, extended, all, found 'most'"),
    ],
)
def test_option_values_are_checked(options: dict[str, object], expected: str) -> None:
    with pytest.raises(InputError) as caught:
        OrtCpu().build(make_model(), options)
    assert expected in caught.value.cause


def test_a_refused_model_is_a_build_error_and_stderr_stays_quiet() -> None:
    code = (
        "import onnx_ir as ir\n"
        "from flatfold.backends.onnxruntime.cpu import OrtCpu\n"
        "from flatfold.errors import BuildError\n"
        f"m = ir.from_onnx_text('{HEAD} g (float[2] x) => (float[2] y) {{ y = NoSuchOp(x) }}')\n"
        "try: OrtCpu().build(m, {})\n"
        "except BuildError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("error[BUILD]: onnxruntime ")
    assert "NoSuchOp" in done.stdout
    assert done.stderr == ""


def test_inputs_numpy_cannot_hold_are_refused() -> None:
    text = HEAD + "g (string[n] x) => (string[n] y) { y = Identity(x) }"
    with pytest.raises(BuildError, match=r"found tensor\(string\) for 'x'"):
        build(ir.from_onnx_text(text))


def test_the_model_is_left_alone_and_later_edits_do_not_reach_the_engine() -> None:
    model = make_model()
    before = ir.to_proto(model).SerializeToString()
    with build(model) as engine:
        assert ir.to_proto(model).SerializeToString() == before
        for node in model.graph:
            node.name = "edited"
        assert "edited" not in _names(engine.model)


def _names(model: ir.Model) -> set[str | None]:
    return {node.name for node in model.graph}


def test_a_failing_run_names_the_cause() -> None:
    text = HEAD + "g (float[n] x) => (float[2, 3] y) <int64[2] s = {2, 3}> { y = Reshape(x, s) }"
    with build(ir.from_onnx_text(text)) as engine:
        assert engine(np.zeros(6, np.float32)).shape == (2, 3)
        with pytest.raises(TargetError, match="cannot be reshaped"):
            engine(np.zeros(5, np.float32))


def test_default_inputs_may_be_fed_or_left_out() -> None:
    text = HEAD + "g (float[2] x, float[2] w = {2, 3}) => (float[2] y) { y = Mul(x, w) }"
    ones = np.ones(2, np.float32)
    with build(ir.from_onnx_text(text)) as engine:
        assert engine.optional_inputs == (TensorSpec("w", "float32", (2,)),)
        np.testing.assert_array_equal(engine(ones), [2, 3])
        np.testing.assert_array_equal(engine(ones, w=ones * 5), [5, 5])


def test_outputs_never_alias_inputs_weights_or_each_other() -> None:
    text = HEAD + (
        "g (float[n] x) => (float[n] same, float[2] k) <float[2] k = {1, 2}>{ same = Identity(x) }"
    )
    x = np.ones(3, np.float32)
    x.flags.writeable = False
    with build(ir.from_onnx_text(text)) as engine:
        first = engine.run({"x": x})
        first["same"][:] = first["k"][:] = 9
        second = engine.run({"x": x})
    np.testing.assert_array_equal(second["same"], 1)
    np.testing.assert_array_equal(second["k"], [1, 2])


def test_two_threads_share_an_engine() -> None:
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            for batch in (1, 8, 3) * 20:
                assert_right(engine, image(batch, seed))
        except BaseException as error:
            failures.append(error)

    with build(make_model(), intra_threads=2) as engine:
        threads = [threading.Thread(target=work, args=(seed,)) for seed in (1, 2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not failures


def test_a_bound_call_reads_and_writes_the_same_memory() -> None:
    x = image(4)
    with build(make_model()) as engine:
        run = engine.bind({"image": x})
        first = run()
        addresses = {name: array.ctypes.data for name, array in first.items()}
        expected = engine.run({"image": image(4, seed=5)})
        x[:] = image(4, seed=5)
        gc.collect()
        second = run()
    assert {name: array.ctypes.data for name, array in second.items()} == addresses
    for name, array in expected.items():
        np.testing.assert_array_equal(second[name], array)


def test_a_model_too_large_for_memory_goes_through_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "IN_MEMORY_LIMIT", 0)
    monkeypatch.setattr(model_file, "EXTERNAL_ABOVE", 0)
    monkeypatch.setattr(cpu, "serialized", _must_not_be_called)
    with build(make_model()) as engine:
        assert_right(engine, image(2))


def _must_not_be_called(model: ir.Model) -> bytes:
    raise AssertionError("this model does not fit into one message")


def test_engine_bytes_do_not_depend_on_hash_order(tmp_path_factory: pytest.TempPathFactory) -> None:
    engines = [build(_branches()) for _ in range(6)]
    folders = [tmp_path_factory.mktemp("engine") for _ in engines]
    for engine, folder in zip(engines, folders, strict=True):
        engine.write_files(folder)
    assert len({(folder / cpu.ENGINE_FILE).read_bytes() for folder in folders}) == 1
    x = np.random.default_rng(1).standard_normal((2, 16, 9, 9)).astype(np.float32)
    optimised = open_session(str(folders[0] / cpu.ENGINE_FILE), engines[0].options, level="disable")
    np.testing.assert_array_equal(optimised.run(None, {"x": x})[0], engines[0](x))
    assert all([p.name for p in folder.iterdir()] == [cpu.ENGINE_FILE] for folder in folders)


def _branches() -> ir.Model:
    """Eight parallel convolutions: many weights whose layout ONNX Runtime changes."""
    rng = np.random.default_rng(0)
    convs = "".join(f"c{i} = Conv <pads = [1, 1, 1, 1]> (x, w{i})\n" for i in range(8))
    total = ", ".join(f"c{i}" for i in range(8))
    text = f"g (float[n, 16, 9, 9] x) => (float[n, 32, 9, 9] y) {{ {convs} y = Sum ({total}) }}"
    shape = (32, 16, 3, 3)
    tensors = [
        ir.tensor(rng.standard_normal(shape).astype(np.float32), name=f"w{i}") for i in range(8)
    ]
    return ir.from_onnx_text(HEAD + text, initializers=tensors)
