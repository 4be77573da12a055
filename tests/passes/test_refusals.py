"""Every code with a graph that trips it: the remark has the numbers and a hint, the graph stays."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper

from flatfold.passes.hints import HINTS
from tests.nets import Net, assert_untouched, rewrite

NONE = [0, 0, 0, 0]


def ended(net: Net, y: str) -> ModelProto:
    """The value behind an activation, so that the graph's output is none of the region."""
    return net.model(net.op("Exp", y))


def alone() -> ModelProto:
    net = Net()
    return ended(net, net.bn(net.op("Exp", net.x), 4))


def with_attributes(**wrong: object) -> ModelProto:
    net = Net()
    net.bn(net.conv(net.x, 4, 4, (3, 3)), 4)
    model = ended(net, net.nodes[-1].output[0])
    kept = [a for a in model.graph.node[0].attribute if a.name not in (*wrong, "auto_pad")]
    del model.graph.node[0].attribute[:]
    kept += [helper.make_attribute(name, value) for name, value in wrong.items()]
    model.graph.node[0].attribute.extend(kept)
    return model


def auto_padded() -> ModelProto:
    net = Net((2, 4, "h", "w"))
    y = net.conv(net.x, 4, 4, (3, 3), auto_pad="SAME_UPPER", strides=[2, 2])
    return ended(net, net.bn(y, 4))


def padded_twice() -> ModelProto:
    net = Net()
    return ended(net, net.conv(net.conv(net.x, 32, 4, (3, 3), False), 4, 32, (3, 3)))


def shifted_in_front_of_padding() -> ModelProto:
    net = Net()
    return ended(net, net.conv(net.bn(net.x, 4), 4, 4, (5, 5)))


def bias_in_front_of_a_transposed_one() -> ModelProto:
    net = Net()
    weight = net.const(net.rng.standard_normal((4, 4, 2, 2)))
    return ended(net, net.op("ConvTranspose", net.bn(net.x, 4), weight, strides=[2, 2]))


def another_border() -> ModelProto:
    net = Net()
    edge = np.full((2, 4, 1, 8), 1.5)
    y = net.op("Concat", net.const(edge), net.conv(net.x, 4, 4, (3, 3)), axis=2)
    return ended(net, net.conv(y, 4, 4, (3, 3), pads=NONE))


def constant_channels_in_front_of_padding() -> ModelProto:
    net = Net()
    y = net.conv(net.x, 8, 4, (3, 3))
    net.constants[net.nodes[-1].input[1]][[1, 5]] = 0
    return ended(net, net.conv(net.op("Tanh", y), 6, 8, (3, 3)))


def broadcast() -> ModelProto:
    net = Net()
    mean = net.op("GlobalAveragePool", net.conv(net.x, 4, 4, (3, 3)))
    return ended(net, net.op("Add", net.conv(net.x, 4, 4, (3, 3)), net.op("Exp", mean)))


def pooled(**how: object) -> ModelProto:
    net = Net()
    y = net.op("AveragePool", net.op("Exp", net.x), kernel_shape=[3, 3], **how)
    return ended(net, net.conv(y, 4, 4, (1, 1)))


def heights_of_other_channels() -> ModelProto:
    """A graph that no shape inference accepts."""
    net = Net()
    parts = net.conv(net.x, 4, 4, (3, 3)), net.conv(net.x, 5, 4, (3, 3))
    model = ended(net, net.op("Concat", *parts, axis=2))
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("exp3", 11, [2, 4, 18, 8]))
    return model


def constants_in_a_sum() -> ModelProto:
    net = Net()
    return ended(net, net.op("Sum", net.conv(net.x, 4, 4, (3, 3)), net.x, net.const(np.ones(1))))


def bottleneck() -> ModelProto:
    net = Net((1, 64, 28, 28))
    return ended(net, net.conv(net.conv(net.x, 4, 64, (1, 1)), 64, 4, (1, 1)))


def of_integers() -> ModelProto:
    net = Net((2, 4))
    model = ended(net, net.op("Cast", net.x, to=TensorProto.DOUBLE))
    weight = helper.make_tensor("w", TensorProto.INT32, (4, 3), range(12))
    model.graph.initializer.append(weight)
    nodes = [
        helper.make_node("Cast", ["x"], ["i"], to=TensorProto.INT32),
        helper.make_node("MatMul", ["i", "w"], ["m"]),
    ]
    del model.graph.node[:], model.graph.value_info[:]
    model.graph.node.extend([*nodes, helper.make_node("Cast", ["m"], ["exp1"], to=11)])
    model.graph.value_info.append(helper.make_tensor_value_info("i", 6, (2, 4)))
    model.graph.value_info.append(helper.make_tensor_value_info("m", 6, (2, 3)))
    return model


def between_pixels() -> ModelProto:
    net = Net(opset=20)
    grid = np.zeros((2, 9, 8, 2)) + np.linspace(-0.9, 0.9, 8)[:, None]
    y = net.op("GridSample", net.x, net.const(grid), mode="linear")
    return ended(net, net.conv(y, 4, 4, (3, 3)))


def along_other_axes() -> ModelProto:
    net = Net((2, 4, 5, 4))
    weight = net.const(net.rng.standard_normal((4, 4)))
    return ended(net, net.op("MatMul", net.bn(net.x, 4), weight))


def by_many_matrices() -> ModelProto:
    net = Net((2, 4, 5))
    return ended(net, net.op("MatMul", net.x, net.const(net.rng.standard_normal((2, 5, 3)))))


def with_parameters(index: int, channel: int, number: float, eps: float = 1e-5) -> ModelProto:
    """Conv and BatchNormalization, one number of the latter, or the former's weight, replaced."""
    net = Net()
    y = net.bn(net.conv(net.x, 6, 4, (3, 3)), 6, eps=eps)
    node = net.nodes[-1 if index else 0]
    net.constants[node.input[index or 1]][(channel, *(0,) * (0 if index else 3))] = number
    return ended(net, y)


def divided() -> ModelProto:
    net = Net()
    divisor = net.const(np.array([1.0, 2.0, 0.0, 1.0]).reshape(4, 1, 1))
    return ended(net, net.op("Div", net.conv(net.x, 4, 4, (3, 3)), divisor))


def scaled_gemm() -> ModelProto:
    net = Net((2, 4))
    y = net.op("Gemm", net.x, net.const(np.ones((4, 3))), alpha=float("inf"))
    return ended(net, net.op("Mul", y, net.const(np.full(3, 2.0))))


def overridable() -> ModelProto:
    net = Net()
    y = net.op("Exp", net.bn(net.conv(net.x, 4, 4, (3, 3)), 4))
    return net.model(y, extra_inputs=[net.nodes[1].input[1]])


def per_pixel() -> ModelProto:
    net = Net()
    y = net.op("Mul", net.conv(net.x, 4, 4, (3, 3)), net.const(np.ones((9, 8)) + np.eye(9, 8)))
    return ended(net, y)


def shift_in_an_old_opset() -> ModelProto:
    net = Net((1, 64, 56, 56), opset=10)
    y = net.op("Pad", net.op("Exp", net.x), pads=[0, 0, 1, 0, 0, 0, 0, 0])
    for factor in (2.0, 0.5):
        y = net.op("Mul", y, net.const(np.array(factor)))
    return ended(net, y)


def returned() -> ModelProto:
    net = Net()
    y = net.conv(net.x, 4, 4, (3, 3))
    return net.model(net.op("Exp", net.bn(y, 4)), y)


def scaled(first: float, second: float, dtype: type = np.float32) -> ModelProto:
    """A convolution by weights of one size and a scale of another, channel 2 standing out."""
    net = Net(dtype=dtype)
    y = net.op("Conv", net.x, net.const(np.full((4, 4, 1, 1), first)))
    factor = np.where(np.arange(4) == 2, second, 1.0).reshape(4, 1, 1)
    return ended(net, net.op("Mul", y, net.const(factor)))


def padded_by(mode: str) -> ModelProto:
    net = Net()
    y = net.op("Pad", net.x, net.const(np.array([0, 0, 2, 1] * 2)), mode=mode)
    return ended(net, net.conv(y, 4, 4, (3, 3), pads=NONE))


def of_unknown_rank() -> ModelProto:
    net = Net((2, "c", 9, "w"))
    y = net.op("Mul", net.op("Exp", net.x), net.const(np.array(2.0)))
    return ended(net, net.op("Mul", y, net.const(np.array(3.0))))


def read_twice() -> ModelProto:
    net = Net()
    y = net.conv(net.x, 4, 4, (3, 3))
    return net.model(net.op("Exp", net.bn(y, 4)), net.op("Tanh", y))


def equal_on_some_sizes() -> ModelProto:
    net = Net((2, 4, "h", "w"))
    strided = net.conv(net.x, 4, 4, (3, 3), strides=[2, 2])
    pooled_ = net.op("AveragePool", net.x, kernel_shape=[2, 2], strides=[2, 2])
    model = ended(net, net.op("Add", strided, pooled_))
    for info in model.graph.value_info:  # as an exporter knows them from its own tracing
        for dim, name in zip(info.type.tensor_type.shape.dim[2:], "pq", strict=True):
            dim.dim_param = name
    return model


def nothing_of_it() -> ModelProto:
    net = Net()
    ends = [net.const(np.array([n])) for n in (5, 3, 2)]
    return ended(net, net.op("Mul", net.op("Slice", net.x, *ends), net.const(np.array(2.0))))


def of_two_values() -> ModelProto:
    net = Net()
    return ended(net, net.op("Add", net.op("Exp", net.x), net.op("Tanh", net.x)))


def at_other_strides() -> ModelProto:
    net = Net()
    one = net.conv(net.x, 4, 4, (3, 3), strides=[1, 2], pads=NONE)
    two = net.conv(net.x, 4, 4, (3, 2), strides=[1, 3], pads=[0, 0, 0, 1])
    return ended(net, net.op("Add", one, two))


def in_training() -> ModelProto:
    net = Net()
    y = net.bn(net.conv(net.x, 4, 4, (3, 3)), 4, outputs=3, training_mode=1)
    return ended(net, y)


def data_transposed() -> ModelProto:
    net = Net((4, 2))
    y = net.op("Gemm", net.x, net.const(np.ones((4, 3))), transA=1)
    return ended(net, net.op("Mul", y, net.const(np.full(3, 2.0))))


def unknown_to_the_check() -> ModelProto:
    net = Net()
    weight = net.const(net.rng.standard_normal((4, 4, 2, 2)))
    return ended(net, net.bn(net.op("ConvTranspose", net.x, weight, auto_pad="VALID"), 4))


def spread_out() -> ModelProto:
    net = Net()
    weight = net.const(net.rng.standard_normal((8, 4, 2, 2)))
    y = net.conv(net.x, 8, 4, (3, 3), False)
    return ended(net, net.op("ConvTranspose", y, weight, strides=[2, 2]))


Case = tuple[str, Callable[[], ModelProto], str]
CASES: tuple[Case, ...] = (
    ("ALONE", alone, "Exp"),
    ("ATTRIBUTE", lambda: with_attributes(strides=[0, 1]), "(0, 1)"),
    ("ATTRIBUTE", lambda: with_attributes(group=3), "3 groups"),
    ("AUTO-PAD", auto_padded, "stride 2"),
    ("BORDER", padded_twice, "1 live"),
    ("BORDER-BIAS", shifted_in_front_of_padding, "(2, 2)"),
    ("BORDER-BIAS", bias_in_front_of_a_transposed_one, "stride (2, 2)"),
    ("BORDER-BIAS", another_border, "1 constants of up to 1.5"),
    ("BORDER-BIAS", constant_channels_in_front_of_padding, "2 channels"),
    ("BROADCAST", broadcast, "[2,4,1,1]"),
    ("CEIL-MODE", lambda: pooled(strides=[2, 2], ceil_mode=1), "(3, 3)"),
    ("CHANNELS", heights_of_other_channels, "[4, 5]"),
    ("CONSTANT", constants_in_a_sum, "1 of the 3"),
    ("COST", bottleneck, "8.0x"),
    ("COUNT-PAD", lambda: pooled(pads=[1, 1, 1, 1]), "(1, 1)"),
    ("DTYPE", of_integers, "INT32"),
    ("FRACTION", between_pixels, "of a pixel"),
    ("LAYOUT", along_other_axes, "axis 1"),
    ("MATMUL", by_many_matrices, "(2, 5, 3)"),
    ("NONFINITE", lambda: with_parameters(0, 3, np.nan), "nan in element [3, 0, 0, 0]"),
    ("NONFINITE", lambda: with_parameters(2, 4, np.inf), "inf in channel 4"),
    ("NONFINITE", lambda: with_parameters(4, 5, -0.25), "-0.25 in channel 5"),
    ("NONFINITE", lambda: with_parameters(4, 1, 0.0, eps=0.0), "0 in channel 1"),
    ("NONFINITE", divided, "channel 2"),
    ("NONFINITE", scaled_gemm, "inf"),
    ("NOT-CONSTANT", overridable, "c2"),
    ("NOT-PER-CHANNEL", per_pixel, "(9, 8)"),
    ("OLD-OPSET", shift_in_an_old_opset, "opset 11"),
    ("OUTPUT", returned, "conv0"),
    ("OVERFLOW", lambda: scaled(1e25, 1e15), "1e+40 in output channel 2"),
    ("OVERFLOW", lambda: scaled(1e3, 1e3, np.float16), "1e+06 in output channel 2"),
    ("OVERFLOW", lambda: scaled(1e200, 1e200, np.float64), "1.8e+308"),
    ("PAD-MODE", lambda: padded_by("reflect"), "reflect"),
    ("SHAPE", of_unknown_rank, "exp0"),
    ("SHARED", read_twice, "2 times"),
    ("SIZE", equal_on_some_sizes, "None"),
    ("SLICE", nothing_of_it, "5 to 3"),
    ("SOURCES", of_two_values, "2 terms"),
    ("STRIDE", at_other_strides, "(1, 3)"),
    ("TRAINING-MODE", in_training, "training_mode is 1"),
    ("TRANSPOSED", data_transposed, "transA is 1"),
    ("UNDERFLOW", lambda: scaled(1e-30, 1e-15), "1e-45 in output channel 2"),
    ("UNDERFLOW", lambda: scaled(1e-3, 1e-4, np.float16), "in output channel 2"),
    ("UNDERFLOW", lambda: scaled(1e-200, 1e-200, np.float64), "1e-308"),
    ("UNPROVED", unknown_to_the_check, "ConvTranspose"),
    ("UPSAMPLE", spread_out, "(3, 3)"),
)


@pytest.mark.parametrize(
    "code, model, number", CASES, ids=[f"{case[0]} {i}" for i, case in enumerate(CASES)]
)
def test_what_is_declined_says_why_and_stays(code, model, number):
    done = rewrite(model())
    told = [remark for remark in done.remarks if remark.code == code]
    assert [remark for remark in told if number in remark.reason], done.remarks
    assert {remark.hint for remark in told} == {HINTS[code]}
    assert_untouched(done)


def test_every_code_has_a_hint_and_a_graph():
    """The codes are those of the source: tests/docs/test_pages.py compares them with the hints."""
    assert {code for code, _, _ in CASES} == set(HINTS)
