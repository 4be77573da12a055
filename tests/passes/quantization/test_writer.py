"""Graphs with codes: what they compute, what stays float, and what ONNX Runtime makes of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from flatfold.passes.quantization.dialect import DIALECTS, OPENVINO, ORT_CPU, TENSORRT, Dialect
from flatfold.passes.quantization.record import Codes, Quantization, Range
from flatfold.passes.quantization.writer import write_codes
from flatfold.proof.network.session import PlainSession
from flatfold.quantizing.layers import layers_of
from flatfold.quantizing.ranges import collect
from tests.nets import Net

SHAPE = (1, 8, 9, 7)
QUIET = {name: d for name, d in DIALECTS.items() if name != "trt-rtx"}  # which is that of trt


def net(shape: tuple[int, ...] = SHAPE, opset: int = 20, **how) -> Net:
    return Net(shape, dtype=np.float32, opset=opset, **how)


def chain(n: Net) -> str:
    x = n.op("Relu", n.conv(n.x, 16, 8, (3, 3)))
    x = n.op("Relu", n.conv(x, 16, 16, (3, 3), groups=16, strides=[2, 1]))
    return n.op("Clip", n.conv(x, 12, 16, (1, 1), bias=False), n.const(0.0), n.const(6.0))


def residual(n: Net) -> str:
    x = n.op("Relu", n.conv(n.x, 8, 8, (3, 3)))
    x = n.op("Relu", n.op("Add", n.conv(x, 8, 8, (3, 3)), x))
    return n.conv(x, 4, 8, (1, 1))


def joined(n: Net) -> str:
    parts = [n.op("Relu", n.conv(n.x, c, 8, (3, 1))) for c in (4, 12)]
    x = n.op("MaxPool", n.op("Concat", *parts, axis=1), kernel_shape=[3, 3], pads=[1] * 4)
    return n.conv(x, 8, 16, (3, 3))


def gated(n: Net) -> str:
    x = n.op("Relu", n.conv(n.x, 8, 8, (3, 3)))
    gate = n.op("Sigmoid", n.conv(n.op("GlobalAveragePool", x), 8, 8, (1, 1)))
    return n.conv(n.op("Mul", x, gate), 8, 8, (1, 1))


def head(n: Net) -> str:
    x = n.op("GlobalAveragePool", n.op("Relu", n.conv(n.x, 16, 8, (3, 3))))
    w, b = n.const(n.rng.standard_normal((10, 16))), n.const(n.rng.standard_normal(10))
    return n.op("Gemm", n.op("Flatten", x), w, b, transB=1)


def smooth(n: Net) -> str:
    x = n.op("HardSwish", n.conv(n.x, 16, 8, (3, 3)))
    return n.op("Relu", n.conv(x, 8, 16, (3, 3)))


def products(n: Net) -> str:
    x = n.op("Transpose", n.op("Relu", n.conv(n.x, 16, 8, (3, 3))), perm=[0, 2, 3, 1])
    for columns in (32, 12):
        w = n.const(n.rng.standard_normal((16 if columns == 32 else 32, columns)))
        x = n.op("Add", n.op("MatMul", x, w), n.const(n.rng.standard_normal(columns)))
        x = n.op("Gelu", x) if columns == 32 else x
    return x


def nothing_between(n: Net) -> str:
    return n.conv(n.conv(n.x, 8, 8, (3, 3)), 8, 8, (3, 3))


NETS: dict[str, Callable[[Net], str]] = {
    function.__name__: function
    for function in (chain, residual, joined, gated, head, smooth, products, nothing_between)
}
LAYERS_OF_GEMM = ("Gemm", "MatMul")


def feeds_of(model: ir.Model, runs: int = 4) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(7)
    (x,) = model.graph.inputs
    return [{x.name: rng.standard_normal(tuple(x.shape)).astype(np.float32)} for _ in range(runs)]


def record(model: ir.Model, feeds) -> Quantization:
    """The plainest one: what values reach, and weights to nearest for each output channel."""
    seen = collect(model, feeds)
    ranges = {value.name: histogram.extremes() for value, histogram in seen.items()}
    for node in model.graph:  # what only moves values has the range of what it reads
        if node.op_type in ("Flatten", "MaxPool"):
            ranges[node.outputs[0].name] = ranges[node.inputs[0].name]
    weights = {}
    for layer in layers_of(model):
        others = tuple(axis for axis in range(layer.weight.ndim) if axis != layer.axis)
        scale = (np.abs(layer.weight).max(axis=others) / 127).astype(np.float32)
        codes = Codes(np.zeros(layer.weight.shape, np.int8), scale, layer.axis)
        rounded = np.rint(layer.weight / codes.along()).astype(np.int8)
        weights[layer.name] = replace(codes, codes=rounded)
    return Quantization(ranges, weights)


def written(function: Callable[[Net], str], dialect: Dialect, **how) -> tuple[ir.Model, ir.Model]:
    n = net(**how)
    model = ir.from_proto(n.model(function(n)))
    before = ir.to_proto(model).SerializeToString()
    after = write_codes(model, record(model, feeds_of(model)), dialect)
    assert ir.to_proto(model).SerializeToString() == before
    onnx.checker.check_model(ir.to_proto(after), full_check=True)
    return model, after


def decibels(exact: np.ndarray, other: np.ndarray) -> float:
    noise = np.square(exact.astype(np.float64) - other).sum()
    return float(10 * np.log10(np.square(exact, dtype=np.float64).sum() / noise))


def as_built(model: ir.Model, folder) -> Counter:
    """The operators that ONNX Runtime runs."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "built.onnx")
    options.log_severity_level = 3
    proto = ir.to_proto(model).SerializeToString()
    onnxruntime.InferenceSession(proto, options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(folder / "built.onnx").graph.node)


@pytest.mark.parametrize("dialect", QUIET.values(), ids=QUIET)
@pytest.mark.parametrize("function", NETS.values(), ids=NETS)
def test_it_computes_about_the_same(function, dialect):
    model, after = written(function, dialect)
    assert [v.name for v in after.graph.outputs] == [v.name for v in model.graph.outputs]
    one, two = PlainSession(model), PlainSession(after)
    for feed in feeds_of(model):
        # 8 bits over what a value reaches leave some 40 dB; a wrong axis or scale leaves 10.
        assert decibels(one(feed)[0], two(feed)[0]) > 25


@pytest.mark.parametrize("function", NETS.values(), ids=NETS)
def test_onnx_runtime_runs_every_layer_on_codes(function, tmp_path):
    model, after = written(function, ORT_CPU)
    wanted = Counter(node.op_type for node in model.graph)
    found = as_built(after, tmp_path)
    assert found["QLinearConv"] == wanted["Conv"]
    assert found["QGemm"] == sum(wanted[kind] for kind in LAYERS_OF_GEMM)
    assert not found["Conv"] and not found["Gemm"] and not found["FusedConv"]


def test_onnx_runtime_has_no_rounding_between_layers(tmp_path):
    _, after = written(residual, ORT_CPU)
    found = as_built(after, tmp_path)
    assert found["QLinearAdd"] == 1 and not found["Relu"]
    assert found["QuantizeLinear"] == found["DequantizeLinear"] == 1  # of the input, the output


def test_a_relu_has_zero_point_0_where_codes_may_have_any():
    _, after = written(chain, ORT_CPU)
    zeros = {
        node.inputs[0].name: int(node.inputs[2].const_value.numpy())
        for node in after.graph
        if node.op_type == "QuantizeLinear"
    }
    assert zeros.pop("x") != 0 and len(zeros) == 3 and not any(zeros.values())


def test_tensorrt_has_signed_codes_around_0_and_a_bias_in_float():
    _, after = written(residual, TENSORRT)
    for node in after.graph:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            zero = node.inputs[2].const_value.numpy()
            assert zero.dtype == np.int8 and not zero.any()
    biases = [node.inputs[2] for node in after.graph if node.op_type == "Conv"]
    assert all(bias.const_value is not None for bias in biases)


def test_a_bias_in_codes_has_the_scale_of_the_sum_that_it_is_added_to():
    model, after = written(chain, ORT_CPU)
    before = {node.name: node for node in model.graph}
    convs = [node for node in after.graph if node.op_type == "Conv" and len(node.inputs) > 2]
    assert len(convs) == 2
    for node in convs:
        read, weight, bias = (value.producer() for value in node.inputs)
        (codes, scale, zero), axis = bias.inputs, bias.attributes.get_int("axis", -1)
        product = read.inputs[1].const_value.numpy() * weight.inputs[1].const_value.numpy()
        np.testing.assert_array_equal(scale.const_value.numpy(), product)
        exact = before[node.name].inputs[2].const_value.numpy().astype(np.float64) / product
        np.testing.assert_array_equal(codes.const_value.numpy(), np.rint(exact))
        assert codes.dtype == ir.DataType.INT32 and not zero.const_value.numpy().any()
        assert axis == 0


def test_a_bias_that_fits_no_32_bits_stays_float():
    n = net()
    model = ir.from_proto(n.model(n.conv(n.x, 8, 8, (3, 3))))
    quantization = record(model, feeds_of(model))
    quantization.biases["conv0"] = np.full(8, 1e9)
    (conv,) = (x for x in write_codes(model, quantization, ORT_CPU).graph if x.op_type == "Conv")
    np.testing.assert_array_equal(conv.inputs[2].const_value.numpy(), np.full(8, 1e9, np.float32))


def test_the_weights_are_the_codes_of_the_record():
    n = net()
    model = ir.from_proto(n.model(chain(n)))
    quantization = record(model, feeds_of(model))
    for node in write_codes(model, quantization, OPENVINO).graph:
        if node.op_type == "Conv":
            load = node.inputs[1].producer()
            codes = quantization.weights[node.name]
            np.testing.assert_array_equal(load.inputs[0].const_value.numpy(), codes.codes)
            np.testing.assert_array_equal(load.inputs[1].const_value.numpy(), codes.scale)
            assert load.attributes.get_int("axis", -1) == codes.axis == 0


def test_a_corrected_bias_comes_to_a_layer_that_had_none():
    n = net()
    model = ir.from_proto(n.model(n.conv(n.x, 8, 8, (1, 1), bias=False)))
    quantization = record(model, feeds_of(model))
    quantization.biases["conv0"] = np.arange(8.0)
    one, two = PlainSession(model), PlainSession(write_codes(model, quantization, TENSORRT))
    (feed, *_) = feeds_of(model)
    moved = (two(feed)[0] - one(feed)[0]).mean(axis=(0, 2, 3))
    np.testing.assert_allclose(moved, np.arange(8.0), atol=0.05)  # a code of the input is 0.03


def test_what_is_moved_around_keeps_its_scale():
    _, after = written(joined, ORT_CPU)
    (pool,) = (node for node in after.graph if node.op_type == "MaxPool")
    before, (behind,) = pool.inputs[0].producer(), (use.node for use in pool.outputs[0].uses())
    assert before.inputs[1].const_value.numpy() == behind.inputs[1].const_value.numpy()
    assert before.inputs[2].const_value.numpy() == behind.inputs[2].const_value.numpy()


def test_what_the_record_leaves_out_stays_float():
    n = net()
    model = ir.from_proto(n.model(chain(n)))
    quantization = record(model, feeds_of(model))
    del quantization.weights["conv2"]  # the depthwise one, between two others
    after = write_codes(model, quantization, OPENVINO)
    convs = [node for node in after.graph if node.op_type == "Conv"]
    assert [node.inputs[1].producer() is not None for node in convs] == [True, False, True]
    assert convs[1].inputs[0].producer().op_type == "Relu"  # nothing is rounded for it


def test_a_layer_whose_input_has_no_range_stays_float():
    n = net()
    model = ir.from_proto(n.model(chain(n)))
    quantization = record(model, feeds_of(model))
    del quantization.ranges["x"]
    after = write_codes(model, quantization, ORT_CPU)
    first = next(node for node in after.graph if node.op_type == "Conv")
    assert first.inputs[0].name == "x" and first.inputs[1].const_value is not None


@pytest.mark.parametrize("dialect", [ORT_CPU, OPENVINO])
def test_depthwise_layers_that_are_slow_on_codes_stay_float(dialect):
    n = net((1, 8, 12, 12))
    x = n.conv(n.x, 8, 8, (7, 7), groups=8)
    x = n.conv(x, 8, 8, (9, 9), groups=8)
    x = n.conv(x, 16, 8, (3, 3), groups=8)
    x = n.conv(x, 16, 16, (3, 3), groups=8)
    model = ir.from_proto(n.model(x))
    after = write_codes(model, record(model, feeds_of(model)), dialect)
    convs = [node for node in after.graph if node.op_type == "Conv"]
    on_codes = [node.inputs[1].producer() is not None for node in convs]
    assert on_codes == [True, False, False, True]


def test_a_gate_by_a_constant_stays_float():
    n = net()
    x = n.op("Mul", n.op("Relu", n.conv(n.x, 8, 8, (3, 3))), n.const(0.5))
    model = ir.from_proto(n.model(n.conv(x, 8, 8, (1, 1))))
    after = write_codes(model, record(model, feeds_of(model)), ORT_CPU)
    (gate,) = (node for node in after.graph if node.op_type == "Mul")
    assert gate.inputs[1].const_value is not None


def test_an_old_opset_becomes_one_with_a_scale_for_each_channel():
    _, after = written(residual, ORT_CPU, opset=11)
    assert after.opset_imports[""] >= 13


def test_an_output_that_is_read_inside_keeps_its_name():
    n = net()
    x = n.op("Relu", n.conv(n.x, 8, 8, (3, 3)))
    model = ir.from_proto(n.model(x, n.conv(x, 4, 8, (1, 1))))
    after = write_codes(model, record(model, feeds_of(model)), ORT_CPU)
    assert [v.name for v in after.graph.outputs] == [v.name for v in model.graph.outputs]
    one, two = PlainSession(model), PlainSession(after)
    for a, b in zip(one(feeds_of(model)[0]), two(feeds_of(model)[0]), strict=True):
        assert decibels(a, b) > 25


def test_a_range_of_nothing_but_0_divides_by_no_0():
    n = net()
    model = ir.from_proto(n.model(n.conv(n.x, 8, 8, (3, 3))))
    quantization = record(model, feeds_of(model))
    quantization.ranges["x"] = Range(0.0, 0.0)
    outputs = PlainSession(write_codes(model, quantization, ORT_CPU))(feeds_of(model)[0])
    assert np.isfinite(outputs[0]).all()
