"""Trained networks in 8 bits on pictures that their training has not seen."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import onnx_ir as ir
import pytest

import flatfold
from examples.digits import NETS
from flatfold.backends import load_backend
from flatfold.errors import Inaccurate
from flatfold.proof.network.arithmetic import TypedSession
from flatfold.quantizing.engine_check import check_codes
from tests.quantizing.test_engine_check import FAULTS
from tests.quantizing.trained import (
    PHOTOGRAPHS,
    Data,
    accuracy,
    agreement,
    data,
    decibels,
    feeds_of,
    in_8_bits,
    scores,
)

needs_photographs = pytest.mark.skipif(
    find_spec("skimage") is None, reason="scikit-image is not installed"
)
MARKS = {"swnet": [pytest.mark.slow], "convnext": [pytest.mark.slow]}
MARKS[PHOTOGRAPHS] = [needs_photographs]
NAMES = [pytest.param(name, marks=MARKS.get(name, [])) for name in (*NETS, PHOTOGRAPHS)]
CHAINS = [name for name in NAMES if name.values[0] in ("repvgg", "vanillanet", PHOTOGRAPHS)]
# Points of the largest score that may be lost, and pictures of 100 whose largest score stays.
MOST_LOST = 0.5
LEAST_ALIKE = {"ort-cpu": 96.0, "openvino": 96.0, "trt": 94.5}  # codes of 8 bits, and of 7
POWERS = 5  # of two, by which channels are scaled, up or down
PROVOKED = 0.25  # points that may be lost then


@pytest.mark.parametrize("target", LEAST_ALIKE)
@pytest.mark.parametrize("name", NAMES)
def test_as_many_pictures_are_classified_right(name: str, target: str) -> None:
    result, seen = in_8_bits(name, target), data(name)
    assert result.rounded is not None and result.rounded.verdict == "quantized"
    assert result.rounded.nodes == result.rounded.total
    exact, found = (scores(one, seen.pictures) for one in (result.float_graph, result.graph))
    before, after = (accuracy(one, seen.labels) for one in (exact, found))
    assert before - after <= MOST_LOST
    assert LEAST_ALIKE[target] <= agreement(exact, found)
    assert decibels(exact, found) < 60  # it does compute on codes


@pytest.mark.parametrize("target", ["ort-cpu", "openvino"])
@pytest.mark.parametrize("name", NAMES)
def test_an_engine_computes_what_its_graph_says(name: str, target: str) -> None:
    backend = load_backend(target)
    if not (state := backend.availability()).runs:
        pytest.skip(state.reason)
    result, pictures = in_8_bits(name, target), data(name).pictures[:450]
    with backend.build(result.graph, {}) as engine:
        assert "int8" in engine.precision
        (found,) = engine.run(feeds_of(result.graph, pictures)).values()
    wanted = scores(result.graph, pictures)
    assert decibels(wanted, found) >= 50
    assert agreement(wanted, found) >= 98


@pytest.mark.parametrize("precision", ["int8", "fp16"])
@pytest.mark.parametrize("name", CHAINS)
def test_channels_of_very_different_sizes_lose_nothing(name: str, precision: str) -> None:
    plain, seen = in_8_bits(name, "ort-cpu").float_graph, data(name)
    assert plain is not None
    exact = scores(plain, seen.pictures)
    model = provoked(plain)
    assert np.array_equal(scores(model, seen.pictures), exact)
    result = flatfold.optimize(
        ir.to_proto(model), target="trt", precision=precision, calibration=seen.seen, verify="off"
    )
    found = scores_of(result.graph, seen, precision)
    assert accuracy(exact, seen.labels) - accuracy(found, seen.labels) <= PROVOKED


def scores_of(model: ir.Model, seen: Data, precision: str) -> np.ndarray:
    if precision == "int8":
        return scores(model, seen.pictures)
    (found,) = TypedSession(model)(feeds_of(model, seen.pictures))
    return np.asarray(found, np.float32)


def provoked(model: ir.Model) -> ir.Model:
    """A copy in which each channel that a Conv writes, for a Relu and another layer behind it to
    read, is times a power of two, which the other layer undoes."""
    copy, rng = model.clone(), np.random.default_rng(0)
    for node in copy.graph:
        reader = _layer_behind(node)
        if node.op_type != "Conv" or reader is None:
            continue
        count = node.inputs[1].shape[0]
        factors = np.exp2(rng.integers(-POWERS, POWERS + 1, count)).astype(np.float32)
        for value in node.inputs[1:]:
            _multiply(copy, value, factors, 0)
        axis = 0 if reader.op_type == "Gemm" and not reader.attributes.get_int("transB", 0) else 1
        _multiply(copy, reader.inputs[1], 1 / factors, axis)
    return copy


def _layer_behind(node: ir.Node) -> ir.Node | None:
    """The layer that alone reads what `node` writes, behind what works on each channel alone."""
    while len(uses := tuple(node.outputs[0].uses())) == 1:
        node = uses[0].node
        if node.op_type == "Gemm" or (node.op_type == "Conv" and not _is_grouped(node)):
            return node
        if node.op_type not in ("Relu", "MaxPool", "GlobalAveragePool", "Flatten"):
            return None
    return None


def _is_grouped(node: ir.Node) -> bool:
    return node.attributes.get_int("group", 1) != 1


def _multiply(model: ir.Model, value: ir.Value | None, factors: np.ndarray, axis: int) -> None:
    assert value is not None and value.const_value is not None
    array = value.const_value.numpy()
    shape = [1] * array.ndim
    shape[axis] = -1
    value.const_value = ir.Tensor(array * factors.reshape(shape), name=value.name)


@pytest.mark.parametrize("target", ["ort-cpu", "openvino"])
@pytest.mark.parametrize("name", NAMES)
def test_each_fault_in_the_graph_of_an_engine_is_caught(name: str, target: str) -> None:
    backend = load_backend(target)
    if not (state := backend.availability()).runs:
        pytest.skip(state.reason)
    graph, pictures = in_8_bits(name, target).graph, data(name).seen
    runs = [feeds_of(graph, picture[None]) for picture in pictures]
    with backend.build(graph, {}) as engine:
        check_codes(engine, graph, runs)
    for fault in FAULTS:
        wrong = graph.clone()
        fault(wrong)
        with backend.build(wrong, {}) as engine, pytest.raises(Inaccurate, match="dB beside"):
            check_codes(engine, graph, runs)
