"""Biases beside direct computation: what quantization adds on average is gone, layer by layer."""

from __future__ import annotations

from functools import partial

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper

from flatfold.narrowing import run_to
from flatfold.passes.quantization.dialect import DIALECTS
from flatfold.passes.quantization.record import Codes, Quantization
from flatfold.passes.quantization.writer import write_codes
from flatfold.quantizing import biases
from flatfold.quantizing.biases import corrected
from flatfold.quantizing.layers import layers_of
from flatfold.quantizing.ranges import Histogram, collect, ranges_by_name
from flatfold.quantizing.rounding import scales_of, to_nearest
from tests.nets import Net

SHAPE = (2, 3, 9, 7)
WRITE = partial(write_codes, dialect=DIALECTS["openvino"])


def branching() -> ir.Model:
    """Two branches with an Add, a Concat, a transposed layer, a matrix product and a Gemm."""
    net = Net(SHAPE, dtype=np.float32)
    first = net.op("Relu", net.conv("x", 6, 3, (3, 3)))
    second = net.op("Relu", net.conv(first, 6, 6, (3, 3), groups=6, bias=False))
    total = net.op("Add", net.conv(second, 6, 6, (1, 1)), first)
    both = net.op("Concat", total, second, axis=1)
    weight = net.const(net.rng.standard_normal((12, 4, 2, 2)))
    y = net.op("Relu", net.op("ConvTranspose", both, weight, strides=[2, 2]))
    y = net.op("Flatten", net.op("GlobalAveragePool", y))
    y = net.op("MatMul", y, net.const(net.rng.standard_normal((4, 8))))
    weights = net.rng.standard_normal((5, 8)), net.rng.standard_normal(5)
    net.x = net.op("Gemm", y, *map(net.const, weights), transB=1)
    return ir.from_proto(onnx.shape_inference.infer_shapes(net.model(net.x)))


def data(count: int = 6) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(3)
    return [{"x": rng.standard_normal(SHAPE).astype(np.float32)} for _ in range(count)]


def rounded(model: ir.Model, feeds: list[dict[str, np.ndarray]]) -> Quantization:
    """Codes that are all too small, so that every channel is off on average."""
    weights = {}
    for layer in layers_of(model):
        codes = to_nearest(layer, scales_of(layer, per_channel=True, clip=False))
        small = np.clip(codes.codes.astype(int) - 3, -127, 127).astype(np.int8)
        weights[layer.name] = Codes(small, codes.scale, codes.axis)
    return Quantization(ranges_by_name(collect(model, feeds), Histogram.extremes), weights)


def means(model: ir.Model, feeds: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The mean of each channel of each layer's output."""
    layers = [node for node in model.graph if node.op_type in ("Conv", "ConvTranspose", "Gemm")]
    run = run_to(model, [node.outputs[0] for node in layers])
    found = {}
    for node, arrays in zip(layers, zip(*map(run, feeds), strict=True), strict=True):
        array = np.concatenate(arrays).astype(np.float64)
        found[node.name or ""] = array.mean(axis=tuple(n for n in range(array.ndim) if n != 1))
    return found


def test_every_channel_has_the_mean_that_it_has_in_float() -> None:
    model, feeds = branching(), data()
    now = rounded(model, feeds)
    after = corrected(now, model, WRITE(model, now), layers_of(model), feeds)
    exact, off = means(model, feeds), means(WRITE(model, now), feeds)
    found = means(WRITE(model, after), feeds)
    assert set(after.biases) == set(exact) and len(exact) == 5  # a MatMul has no bias
    for name, mean in exact.items():
        size = np.abs(off[name]).max()
        assert np.abs(off[name] - mean).max() > 0.01 * size
        # A value that is on the edge of a code may become the next one, where biases are rounded.
        np.testing.assert_allclose(found[name], mean, rtol=0, atol=2e-4 * size)


def test_the_first_layer_is_off_by_its_weights_and_inputs_alone() -> None:
    model, feeds = branching(), data()
    now = rounded(model, feeds)
    after = corrected(now, model, WRITE(model, now), layers_of(model)[:1], feeds)
    exact, off = means(model, feeds), means(WRITE(model, now), feeds)
    (name,) = after.biases
    bias = layers_of(model)[0].node.inputs[2].const_value.numpy()
    np.testing.assert_allclose(after.biases[name], bias + exact[name] - off[name], atol=1e-6)


def test_fewer_runs_are_kept_where_values_are_large(monkeypatch) -> None:
    model, feeds = branching(), data()
    now = rounded(model, feeds)
    monkeypatch.setattr(biases, "MOST_ELEMENTS", 1)
    after = corrected(now, model, WRITE(model, now), layers_of(model), feeds)
    monkeypatch.undo()
    fewer = corrected(now, model, WRITE(model, now), layers_of(model), feeds[:1])
    for name, bias in fewer.biases.items():
        np.testing.assert_array_equal(after.biases[name], bias)


@pytest.mark.parametrize("count", [0, 1])
def test_what_was_corrected_is_corrected_from_where_it_is(count: int) -> None:
    model, feeds = branching(), data()
    now = rounded(model, feeds)
    for _ in range(count + 1):
        now = corrected(now, model, WRITE(model, now), layers_of(model), feeds)
    again = corrected(now, model, WRITE(model, now), layers_of(model), feeds)
    for name, bias in now.biases.items():
        np.testing.assert_allclose(again.biases[name], bias, atol=1e-3 * np.abs(bias).max())


def conditional() -> ir.Model:
    """Two layers, and an If whose branches read the first one's output, in front of a third."""
    net = Net((1, 4, 5, 5), dtype=np.float32)
    first = net.conv("x", 4, 4, (1, 1), bias=False)
    second = net.op("Relu", net.conv(first, 4, 4, (1, 1), bias=False))
    positive = net.op("Greater", net.op("ReduceMean", "x", keepdims=0), net.const(np.float32(0)))
    shape = helper.make_tensor_value_info("t", onnx.TensorProto.FLOAT, [1, 4, 5, 5])
    branches = {
        f"{name}_branch": helper.make_graph(
            [helper.make_node(op, [first, second], ["t"], name=name)], name, [], [shape]
        )
        for name, op in (("then", "Add"), ("else", "Sub"))
    }
    net.x = net.conv(net.op("If", positive, **branches), 4, 4, (1, 1))
    return ir.from_proto(onnx.shape_inference.infer_shapes(net.model(net.x)))


def test_what_a_branch_reads_is_kept_for_it() -> None:
    rng = np.random.default_rng(1)
    feeds = [{"x": rng.standard_normal((1, 4, 5, 5)).astype(np.float32)} for _ in range(6)]
    model = conditional()
    now = rounded(model, feeds)
    after = corrected(now, model, WRITE(model, now), layers_of(model), feeds)
    exact, found = means(model, feeds), means(WRITE(model, after), feeds)
    assert len(after.biases) == 3
    for name, mean in exact.items():
        np.testing.assert_allclose(found[name], mean, atol=2e-4 * np.abs(mean).max())
