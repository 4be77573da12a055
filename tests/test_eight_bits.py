"""Engines in 8 bits from end to end: what is asked for, what runs, and what is said of it."""

from __future__ import annotations

import numpy as np
import pytest

import flatfold
from flatfold.compiler import targets_of
from flatfold.errors import CalibrationMissing, Degraded, InputError, PrecisionUnavailable
from flatfold.precision import Precision
from flatfold.result import Rounded
from tests.nets import Net

RUNS = 16


def model():
    net = Net((1, 8, 12, 10), dtype=np.float32)
    x = net.op("Relu", net.bn(net.conv(net.x, 16, 8, (3, 3)), 16))
    x = net.op("Relu", net.bn(net.conv(x, 16, 16, (3, 3)), 16))
    x = net.op("Flatten", net.op("GlobalAveragePool", x))
    w, b = net.const(net.rng.standard_normal((5, 16))), net.const(net.rng.standard_normal(5))
    return net.model(net.op("Gemm", x, w, b, transB=1))


def data(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((RUNS, 8, 12, 10)).astype(np.float32)


def compiled(target: str = "ort-cpu", **how):
    return flatfold.compile(model(), target, cache_dir="", tune=0, **how)


@pytest.mark.parametrize("target", ["ort-cpu", "openvino"])
def test_an_engine_computes_on_codes_and_says_what_it_loses(target):
    from flatfold.backends import load_backend

    if not (state := load_backend(target).availability()).runs:
        pytest.skip(state.reason)
    x = data()
    with compiled(target, precision="int8", calibration=x) as engine:
        assert "int8" in engine.precision.split("+")
        rounded = Rounded(**engine.manifest["rounded"])
        assert rounded.verdict == "quantized" and rounded.nodes == rounded.total == 3
        assert (rounded.runs, rounded.held_runs) == (12, 4)
        assert engine.manifest["engine_equivalence"]["reference"] == "the graph in 8 bits"
        with compiled(target) as exact:
            feeds = {"x": x[:1]}
            (one,), (two,) = (e.run(feeds).values() for e in (exact, engine))
        assert 0 < np.abs(one - two).max() < 0.1 * np.abs(one).max()


def test_the_graph_has_the_dialect_of_the_target():
    def biases(target: str) -> set[bool]:
        result = flatfold.optimize(model(), target=target, precision="int8", calibration=data())
        convs = [node for node in result.graph.graph if node.op_type == "Conv"]
        return {node.inputs[2].const_value is None for node in convs}

    assert biases("ort-cpu") == {True}  # in codes
    assert biases("trt") == {False}


def test_the_proof_is_about_the_float_graph():
    result = flatfold.optimize(model(), precision="int8", calibration=data())
    assert result.equivalence.verdict == "certified"
    assert {node.op_type for node in result.float_graph.graph} & {"QuantizeLinear"} == set()
    assert result.certificate() is not None
    assert Rounded(**result.record()["rounded"]) == result.rounded


def test_data_is_needed_and_random_data_is_only_good_for_speed():
    for precision in ("int8", "mixed"):
        with pytest.raises(CalibrationMissing, match="needs data") as caught:
            flatfold.optimize(model(), precision=precision)
        assert caught.value.code == "CALIBRATION" and "--calibration" in caught.value.hint
    result = flatfold.optimize(model(), precision="int8", calibration="random")
    assert result.rounded.verdict == "speed only" and result.rounded.agreement is None


def test_what_is_not_for_8_bits_is_refused():
    for how in ({"max_drop": 0.1}, {"accuracy": lambda run: 1.0}):
        with pytest.raises(InputError, match="expected precision int8 or mixed"):
            flatfold.optimize(model(), **how)
    with pytest.raises(InputError, match="inputs and outputs in float32"):
        Precision("int8", narrow_io=True)
    with pytest.raises(InputError, match="from 0 to 1"):
        Precision("int8", max_drop=1.5)
    with pytest.raises(PrecisionUnavailable, match=r"cannot compute in int8|not installed"):
        try:
            targets_of("ort-cuda", "int8")
        except flatfold.FlatfoldError as error:
            raise PrecisionUnavailable(error.cause) from None


def test_a_layer_that_keeps_float_is_no_layer_on_codes():
    result = flatfold.optimize(model(), precision="int8", calibration=data(), keep_float=["Gemm"])
    assert (result.rounded.nodes, result.rounded.total) == (2, 3)
    assert "ASKED" in {remark.code for remark in result.remarks}


def worse_by(share: float):
    """An accuracy of 1 in float, and of less by `share` in 8 bits, told by the exact outputs."""
    x = data(5)
    exact = flatfold.optimize(model()).model
    from onnx.reference import ReferenceEvaluator

    wanted = ReferenceEvaluator(exact).run(None, {"x": x[:1]})[0]

    def accuracy(run) -> float:
        (found,) = run({"x": x[:1]})
        return 1.0 if np.abs(found - wanted).max() < 1e-4 else 1.0 - share

    return accuracy


def test_more_lost_than_allowed_is_an_error_with_the_numbers():
    how = {"precision": "int8", "calibration": data(), "accuracy": worse_by(0.1)}
    assert flatfold.optimize(model(), **how, max_drop=0.05).rounded.verdict == "degraded"
    with pytest.raises(Degraded, match=r"10\.00% lost of 5\.00% allowed") as caught:
        compiled(**how, max_drop=0.05)
    assert caught.value.exit_code == 4 and "mixed" in caught.value.hint
    compiled(**how, max_drop=0.2).close()


def test_mixed_keeps_layers_in_float_until_no_more_is_lost():
    how = {"precision": "mixed", "calibration": data(), "accuracy": worse_by(0.1)}
    result = flatfold.optimize(model(), **how, max_drop=0.05)
    assert result.rounded.nodes == 0 and result.rounded.verdict == "quantized"
    assert "DROP" in {remark.code for remark in result.remarks}
    result = flatfold.optimize(model(), **how, max_drop=0.2)
    assert result.rounded.nodes == 3


def test_the_key_of_an_engine_has_the_data_and_the_drop(tmp_path):
    def built(**how) -> bool:
        seen = []
        engine = flatfold.compile(
            model(), "ort-cpu", cache_dir=tmp_path, tune=0, progress=seen.append, **how
        )
        engine.close()
        return any("building" in text for text in seen)

    first = {"precision": "int8", "calibration": data()}
    assert built(**first) and not built(**first)
    assert built(precision="int8", calibration=data(1))
    assert built(**first, max_drop=0.5)
    assert built()
