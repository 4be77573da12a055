"""What the roundings of a typed graph explain of an engine's error, and what they do not."""

from __future__ import annotations

import functools

import numpy as np
import onnx_ir as ir
import pytest

import flatfold
from flatfold.backends.onnxruntime.cpu import OrtEngine
from flatfold.backends.tensorrt.options import EDITIONS
from flatfold.errors import Inaccurate
from flatfold.proof import check_engine, compare
from flatfold.proof.network.allowance import MORE
from flatfold.proof.network.arithmetic import Rounding, TypedSession
from flatfold.proof.network.engine import narrowed
from tests.nets import Net
from tests.typed import (
    BRAIN,
    HALF,
    SINGLE,
    in_coarser_type,
    layer_count,
    repvgg,
    typed,
    with_weight,
)

KINDS = [HALF, BRAIN]
SLOW = functools.partial(pytest.param, marks=pytest.mark.slow)
COARSER = {HALF: BRAIN, BRAIN: ir.DataType.FLOAT8E4M3FN}


def engine(model, rounding=Rounding.NEAREST, narrow=None):
    """An engine that computes `model` with these roundings."""
    session = TypedSession(model, rounding, narrow)
    names = [value.name for value in model.graph.outputs]
    return lambda feeds: dict(zip(names, session(feeds), strict=True))


def checked(run, model, precision="fp16"):
    return check_engine(run, precision, model, model)


@functools.cache
def network(name: str) -> ir.Model:
    """A network of the zoo, rewritten, in float32, for small pictures of no square shape."""
    done = flatfold.optimize(name, input_shape=(1, 3, 64, 48), verify="off")
    return ir.from_proto(done.model)


# The three defects that half precision had.


def test_float16_between_casts_is_judged_by_its_inner_types():
    """The graph's outputs are float32, and ONNX Runtime computes all of it in float32."""
    with flatfold.compile(typed(repvgg(), HALF), target="ort-cpu", tune=0) as done:
        found = done.manifest["engine_equivalence"]
        assert done.manifest["equivalence"]["verdict"] == "certified"
        assert found["verdict"] == "sampled" and 2e-5 < found["bound"] < 2e-3
        assert found["original_error"] > 100 * found["error"]


@pytest.mark.parametrize("ends", [True, False])
def test_any_bfloat16_graph_is_proved_without_a_runtime_that_has_it(ends):
    done = flatfold.optimize(typed(repvgg(), BRAIN, ends))
    assert done.after.operators["Conv"] == 3 and "BatchNormalization" not in done.after.operators
    assert done.equivalence.verdict == "certified"
    assert done.equivalence.reference == "the ONNX reference in float64"


@pytest.mark.skipif(not EDITIONS["trt-rtx"].installed, reason="TensorRT for RTX is not installed")
def test_an_engine_is_built_of_a_bfloat16_graph_ahead_of_time():
    with flatfold.compile(typed(repvgg(), BRAIN), target="trt-rtx", tune=0) as done:
        assert done.precision == "bf16"
        assert done.manifest["equivalence"]["verdict"] == "certified"


def test_an_engine_in_bfloat16_has_a_limit_that_can_fail():
    """Its error is 5e-3 on networks of this size, and what was allowed was 1e-1."""
    model = network("repvgg_a0")
    run = engine(model, Rounding.MOVED, BRAIN)
    found = checked(run, model, "bf16")
    assert found.verdict == "sampled" and 1e-3 < found.error < found.bound < 2e-2
    off = 3 * found.bound  # of the range
    assert checked(shifted(run, off), model, "bf16").verdict == "refuted"


def shifted(run, share):
    return lambda feeds: {n: y + np.float32(share * np.abs(y).max()) for n, y in run(feeds).items()}


@pytest.mark.parametrize("precision", [{}, {"inference_precision": "bf16"}])
@pytest.mark.parametrize("dtype", [SINGLE, BRAIN, HALF])
def test_openvino_is_within_its_roundings(dtype, precision):
    pytest.importorskip("openvino")
    model = repvgg() if dtype == SINGLE else typed(repvgg(), dtype)
    with flatfold.compile(model, "openvino", engine_options=precision, tune=0) as done:
        found = done.manifest["engine_equivalence"]
        assert found["verdict"] == "sampled" and found["bound"] < 2e-2


def test_bfloat16_at_the_ends_of_an_openvino_engine():
    pytest.importorskip("openvino")
    with flatfold.compile(typed(repvgg(), BRAIN, ends=False), "openvino", tune=0) as done:
        assert done.outputs[0].dtype == "bfloat16"
        assert done.manifest["engine_equivalence"]["verdict"] == "sampled"


# Engines that are right pass, with whatever part of the roundings.


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("name", ["repvgg_a0", SLOW("mobileone_s0")])
@pytest.mark.parametrize("rounding", ["NONE", "NEAREST", "UNBOUNDED", "MOVED"])
def test_an_engine_may_round_as_it_likes(name, dtype, rounding):
    model = typed(network(name), dtype)
    found = checked(engine(model, Rounding[rounding]), model)
    assert found.verdict == "sampled", found


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("size", [1, 2])
def test_outputs_of_few_numbers_are_allowed_how_much_they_vary(dtype, size):
    """By luck, the rounding of one number may be no error at all."""
    for seed in range(20):
        model = single_outputs(dtype, size, seed)
        found = checked(engine(model, Rounding.MOVED), model)
        assert found.verdict == "sampled", found


def single_outputs(dtype: ir.DataType, size: int, seed: int) -> ir.Model:
    net = Net((1, 8), seed, np.float32, opset=22)
    hidden = net.op("MatMul", net.x, net.const(net.rng.standard_normal((8, 16))))
    last = net.const(net.rng.standard_normal((16, size)))
    return typed(ir.from_proto(net.model(net.op("MatMul", net.op("Tanh", hidden), last))), dtype)


# Engines with a fault do not.


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("name", ["repvgg_a0", SLOW("vanillanet_5")])
def test_a_planted_fault_in_any_layer_is_more_than_roundings_explain(name, dtype):
    """In an engine that rounds as the graph does: one layer in a coarser type, twice a scale, no
    bias. Every eighth layer is tried, and the last."""
    model = typed(network(name), dtype)
    for layer in {*range(0, layer_count(model), 8), layer_count(model) - 1}:
        for fault in (
            in_coarser_type(model, layer, COARSER[dtype]),
            with_weight(model, layer, 1, lambda weight: 2 * weight),
            with_weight(model, layer, 2, np.zeros_like),
        ):
            found = checked(engine(fault), model)
            assert found.verdict == "refuted" and found.error > found.bound, (layer, found)


def test_an_engine_that_drops_a_layer_to_half_precision_is_caught_beside_float32():
    """A layer that is float32 in the graph, on purpose, is not allowed its type's roundings."""
    model = network("repvgg_a0")
    found = checked(engine(in_coarser_type(model, 3, HALF)), model, "fp32")
    assert found.verdict == "refuted"


def test_a_wrong_engine_of_a_half_precision_graph_is_not_handed_over(monkeypatch):
    right = OrtEngine.execute
    monkeypatch.setattr(
        OrtEngine,
        "execute",
        lambda self, feeds: {n: y * np.float32(1.01) for n, y in right(self, feeds).items()},
    )
    with pytest.raises(Inaccurate):
        flatfold.compile(typed(repvgg(), HALF), target="ort-cpu", tune=0)


@pytest.mark.parametrize("dtype", KINDS)
def test_a_wrong_rewrite_in_half_precision_is_refuted(dtype):
    model = typed(repvgg(), dtype)
    done = ir.from_proto(flatfold.optimize(model).model)
    assert compare(model, done).verdict == "sampled"
    assert compare(model, with_weight(done, 1, 1, lambda w: 1.1 * w)).verdict == "refuted"
    assert compare(model, with_weight(done, 1, 2, np.zeros_like)).verdict == "refuted"
    assert not flatfold.verify(model, with_weight(done, 0, 2, np.zeros_like))


@pytest.mark.parametrize("proved", [True, False])
def test_a_graph_that_was_not_proved_is_held_to_the_original_too(proved):
    """Another tool may have written it: the engine is right, and its graph is not."""
    model = typed(repvgg(), BRAIN)
    wrong = with_weight(model, 1, 1, lambda weight: 1.5 * weight)
    found = check_engine(engine(wrong), "bf16", model, wrong, proved=proved)
    assert found.verdict == ("sampled" if proved else "refuted")


# Overflow is no rounding.


def overflowing() -> ir.Model:
    """Numbers of a million inside, of order 1 at the end."""
    model = ir.from_onnx_text(
        '<ir_version: 10, opset_import: ["" : 22]> g (float[1, 64] x) => (float[1, 64] y)'
        "<float large = {1e6}> { s = Mul (x, large)  t = Relu (s)  y = Div (t, large) }"
    )
    copy = typed(model, HALF)
    for value in copy.graph.initializers.values():  # what float16 can hold
        value.const_value = ir.Tensor(np.array(6e4, np.float16), name=value.name)
    return copy


def test_an_overflow_that_the_engine_shows_too_is_not_explained():
    model = overflowing()
    found = checked(engine(model), model)
    assert found.verdict == "unknown"
    assert "float16 overflows" in found.reason and "'s' reaches" in found.reason
    assert "no rounding explains" in found.reason


def test_an_engine_with_more_range_is_judged_and_told():
    model = overflowing()
    for rounding in (Rounding.NONE, Rounding.UNBOUNDED):
        found = checked(engine(model, rounding), model)
        assert found.verdict == "sampled" and found.bound < 2e-3
        assert "does no harm" in found.reason


def test_an_overflow_of_the_engine_alone_is_refuted():
    model = typed(repvgg(), HALF)
    run = engine(model)

    def infinite(feeds):
        outputs = run(feeds)
        for array in outputs.values():
            array.reshape(-1)[0] = np.inf
        return outputs

    found = checked(infinite, model)
    assert found.verdict == "refuted" and "no longer finite" in found.reason


def test_subnormal_numbers_are_as_coarse_as_they_are():
    """Below 2^-14, numbers of float16 are 2^-24 apart, which the graph itself shows."""
    model = ir.from_onnx_text(
        '<ir_version: 10, opset_import: ["" : 22]> g (float[1, 64] x) => (float[1, 64] y)'
        "<float small = {1e-6}> { s = Mul (x, small)  t = Relu (s)  y = Div (t, small) }"
    )
    model = typed(model, HALF)
    found = checked(engine(model, Rounding.UNBOUNDED), model)
    assert found.verdict == "sampled" and found.original_error > 2.0**-8
    assert checked(shifted(engine(model), 0.1), model).verdict == "refuted"


def test_which_half_precision_an_engine_computes_in_that_the_graph_does_not():
    assert narrowed("bf16", repvgg()) == BRAIN
    assert narrowed("fp16+fp32", repvgg()) == HALF
    assert narrowed("fp32", repvgg()) is None
    assert narrowed("fp16", typed(repvgg(), HALF)) is None
    assert narrowed("bf16", typed(repvgg(), HALF)) == BRAIN


def test_the_margin_is_less_than_the_gap_between_two_types():
    """bfloat16 has roundings of eight times those of float16: a whole graph in it is caught."""
    model = typed(repvgg(), HALF)
    assert MORE < 2
    assert checked(engine(model, narrow=BRAIN), model).verdict == "refuted"
