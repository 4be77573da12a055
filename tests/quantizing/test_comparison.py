"""Graphs beside the float one, and layers one at a time, beside direct computation."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator

from flatfold import narrowing
from flatfold.narrowing import SAME
from flatfold.passes.quantization.record import Quantization, Range
from flatfold.proof.network.session import PlainSession
from flatfold.quantizing import comparison, steps
from flatfold.quantizing.comparison import Comparison, fake_quantized, layer_decibels, saturated
from flatfold.quantizing.layers import layers_of
from flatfold.quantizing.ranges import Histogram, collect, ranges_by_name
from flatfold.quantizing.rounding import Hessian, scales_of, to_nearest
from tests.nets import Net
from tests.quantizing.test_layers import net_of
from tests.quantizing.test_rounding import SHAPES


def scores(noise: float = 0.0) -> ir.Model:
    """y = x + noise * x^2, and -x."""
    net = Net((2, 5), dtype=np.float32)
    square = net.op("Mul", net.op("Mul", "x", "x"), net.const(np.float32(noise)))
    outputs = net.op("Add", "x", square), net.op("Neg", "x")
    return ir.from_proto(onnx.shape_inference.infer_shapes(net.model(*outputs)))


def test_a_graph_is_as_far_away_as_its_worst_output() -> None:
    rng = np.random.default_rng(0)
    feeds = [{"x": rng.standard_normal((2, 5)).astype(np.float32)} for _ in range(20)]
    x = np.concatenate([feed["x"] for feed in feeds]).astype(np.float64)
    plain = Comparison(scores(), feeds)
    assert plain.of(scores()).decibels == SAME and plain.of(scores()).agreement == 1
    other = plain.of(scores(0.5))
    y = x + 0.5 * x**2
    assert other.decibels == pytest.approx(10 * np.log10((x**2).sum() / (0.25 * x**4).sum()))
    same = [*(x.argmax(1) == y.argmax(1)), *[True] * len(x)]
    assert other.agreement == np.mean(same) < 1


def test_fewer_outputs_are_kept_where_they_are_large(monkeypatch) -> None:
    feeds = [{"x": np.full((2, 5), n, np.float32)} for n in range(6)]
    monkeypatch.setattr(comparison, "MOST_ELEMENTS", 65)
    plain = Comparison(scores(), feeds)
    assert len(plain.feeds) == len(plain.exact) == 3
    assert plain.of(scores()).decibels == SAME


@pytest.mark.parametrize("codes", ["uint8", "int8"])
def test_values_are_rounded_as_onnx_says(codes: str) -> None:
    array = (3 * np.random.default_rng(0).standard_normal(2000)).astype(np.float32)
    limits = Range(-2.3, 4.1)
    scale, zero = limits.grid(codes)
    net = Net((2000,), dtype=np.float32, opset=21)
    ends = net.const(np.asarray(scale)), net.const(np.asarray(zero, codes))
    net.x = net.op("DequantizeLinear", net.op("QuantizeLinear", "x", *ends), *ends)
    (expected,) = ReferenceEvaluator(net.model(net.x)).run(None, {"x": array})
    np.testing.assert_array_equal(fake_quantized(array, limits, codes), expected)


@pytest.mark.parametrize("codes", ["uint8", "int8"])
@pytest.mark.parametrize("name", SHAPES)
def test_one_layer_is_as_far_away_as_when_it_is_run(name: str, codes: str) -> None:
    net = net_of(*SHAPES[name][:3], **SHAPES[name][3])
    model = ir.from_proto(onnx.shape_inference.infer_shapes(net.model(net.x)))
    (layer,) = layers_of(model)
    feeds = [{"x": net.rng.standard_normal(net.shape).astype(np.float32)} for _ in range(3)]
    ranges = ranges_by_name(collect(model, feeds), Histogram.extremes)
    weight = to_nearest(layer, scales_of(layer, per_channel=True, clip=False))
    now = Quantization({"x": ranges["x"]}, {layer.name: weight})
    found = layer_decibels(model, [layer], now, feeds, codes)[layer.name]
    exact = [PlainSession(model)(feed)[0] for feed in feeds]
    copy = model.clone()
    copy.graph.initializers["c0"].const_value = ir.Tensor(weight.weight(), name="c0")
    run, other = PlainSession(copy), []
    for feed in feeds:
        other.append(run({"x": fake_quantized(feed["x"], ranges["x"], codes)})[0])
    signal, noise = np.square(exact).sum(), np.square(np.subtract(other, exact)).sum()
    assert found == pytest.approx(10 * np.log10(signal / noise), abs=0.01)


def test_the_share_that_is_clipped_is_counted() -> None:
    net = Net((1, 1000), dtype=np.float32)
    net.x = net.op("Neg", "x")
    model = ir.from_proto(net.model(net.x))
    x = np.linspace(-1, 1, 1000, dtype=np.float32)[None]
    seen = collect(model, [{"x": x}])
    shares = saturated(seen, Quantization({"x": Range(-0.5, 0.75)}))
    assert shares == {"x": pytest.approx(0.25 + 0.125, abs=0.002)}  # two bins of 2048


def test_hessians_are_summed_in_groups_that_can_be_kept(monkeypatch) -> None:
    net = Net((1, 3, 9, 7), dtype=np.float32)
    y = net.op("Relu", net.conv("x", 4, 3, (3, 3)))
    net.x = net.conv(net.op("Relu", net.conv(y, 4, 4, (3, 3), groups=4)), 2, 4, (1, 1))
    model = ir.from_proto(onnx.shape_inference.infer_shapes(net.model(net.x)))
    layers = layers_of(model)
    assert list(narrowing.chunks(layers, steps.elements_in_memory)) == [layers]
    monkeypatch.setattr(narrowing, "MOST_ELEMENTS", Hessian.elements(layers[0]) + 3 * 63)
    assert list(narrowing.chunks(layers, steps.elements_in_memory)) == [layers[:1], layers[1:]]
    feeds = [{"x": net.rng.standard_normal((1, 3, 9, 7)).astype(np.float32)} for _ in range(2)]
    sums = steps.hessians(model, layers[:1], feeds)[layers[0]]
    columns = np.concatenate([layers[0].columns(f["x"], 1 << 20) for f in feeds], axis=2)[0]
    ((_, block),) = sums.blocks(0)
    np.testing.assert_allclose(block, columns @ columns.T, atol=1e-5 * block.max())
