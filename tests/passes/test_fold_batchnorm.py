"""Folding affine maps per channel into the layer beside them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.fuzz.sketch import run as run_in_onnx_runtime
from tests.nets import Net, assert_same, assert_untouched, rewrite, run

KERNELS = [(3, 3), (2, 5), (1, 1)]


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("bias", [True, False])
def test_batchnorm_after_conv(kernel, groups, bias):
    net = Net()
    out = net.bn(net.conv(net.x, 8, 4, kernel, bias, groups, strides=[2, 1]), 8, eps=1e-3)
    done = rewrite(net.model(net.op("Relu", out)))
    assert done.ops == {"Conv": 1, "Relu": 1}
    assert done.applied == ["fold-batchnorm"]
    assert_same(done)


@pytest.mark.parametrize(("shape", "kernel"), [((2, 4, 9), (3,)), ((1, 4, 5, 6, 7), (3, 1, 2))])
def test_one_and_three_spatial_axes(shape, kernel):
    net = Net(shape)
    done = rewrite(net.model(net.op("Relu", net.bn(net.conv(net.x, 6, 4, kernel), 6))))
    assert done.ops == {"Conv": 1, "Relu": 1}
    assert_same(done)


def test_batchnorm_after_and_before_gemm():
    net = Net((3, 4))
    wide = net.op("Gemm", net.bn(net.x, 4), net.const(net.rng.standard_normal((4, 6))), alpha=0.5)
    done = rewrite(net.model(net.op("Relu", net.bn(wide, 6))))
    assert done.ops == {"Gemm": 1, "Relu": 1}
    assert_same(done)


def test_several_maps_in_a_row_are_rounded_once():
    net = Net(dtype=np.float32)
    y = net.conv(net.x, 4, 4, (3, 3))
    for _ in range(3):
        y = net.op("Mul", net.bn(y, 4), net.const(net.rng.standard_normal((4, 1, 1))))
    y = net.op("Sub", net.const(net.rng.standard_normal((1, 4, 1, 1))), y)
    done = rewrite(net.model(net.op("Relu", net.op("Div", y, net.const(np.full(1, 3.0))))))
    assert done.ops == {"Conv": 1, "Relu": 1}
    assert done.applied == ["fold-batchnorm"]
    assert done.checks.worst <= 1.01


def test_batchnorm_before_conv_without_padding():
    net = Net()
    done = rewrite(net.model(net.conv(net.bn(net.x, 4), 6, 4, (3, 3), pads=[0, 0, 0, 0])))
    assert done.ops == {"Conv": 1}
    assert_same(done)


def test_batchnorm_before_padded_conv_is_left_because_the_rim_would_be_wrong():
    net = Net()
    done = rewrite(net.model(net.conv(net.bn(net.x, 4), 6, 4, (3, 3))))
    assert_untouched(done)
    assert "BORDER-BIAS" in done.codes


def test_a_pure_scale_before_a_padded_conv_is_folded():
    net = Net()
    scaled = net.op("Mul", net.const(net.rng.standard_normal((4, 1, 1))), net.x)
    done = rewrite(net.model(net.conv(scaled, 6, 4, (3, 3))))
    assert done.ops == {"Conv": 1}
    assert_same(done)


def test_adding_zero_and_multiplying_by_one_vanish():
    net = Net()
    y = net.op("Add", net.op("Tanh", net.x), net.const(np.zeros(())))
    y = net.op("Mul", net.op("Relu", y), net.const(np.ones((4, 1, 1))))
    done = rewrite(net.model(net.op("Sigmoid", y)))
    assert done.ops == {"Tanh": 1, "Relu": 1, "Sigmoid": 1}
    assert_same(done)


def test_the_name_of_an_output_is_kept():
    net = Net()
    model = net.model(net.bn(net.conv(net.x, 4, 4, (3, 3)), 4))
    done = rewrite(model)
    assert done.after.graph.output[0].name == model.graph.output[0].name
    assert_same(done)


def test_gamma_zero_leaves_the_bias():
    net = Net()
    y = net.bn(net.conv(net.x, 4, 4, (3, 3)), 4)
    net.constants["c2"][:2] = 0.0
    done = rewrite(net.model(y))
    assert done.ops == {"Conv": 1}
    assert_same(done)


def test_half_precision_is_folded_in_double_and_rounded_once():
    net = Net(dtype=np.float16)
    model = net.model(net.bn(net.conv(net.x, 4, 4, (3, 3), bias=False), 4))
    done = rewrite(model)
    arrays = {v.name: v.const_value.numpy() for v in done.graph.graph.initializers.values()}
    weight = next(a for name, a in arrays.items() if name.endswith("weight"))
    gamma, _, _, var = (net.constants[f"c{i}"].astype(np.float64) for i in range(1, 5))
    exact = net.constants["c0"] * (gamma / np.sqrt(var + np.float32(1e-5))).reshape(-1, 1, 1, 1)
    assert weight.dtype == np.float16
    assert np.array_equal(weight, exact.astype(np.float16))


DECLINES = {
    "TRAINING-MODE": lambda net, y: net.bn(y, 4, training_mode=1, outputs=3),
    "SHARED": lambda net, y: net.op("Add", net.op("Relu", y), net.op("Relu", net.bn(y, 4))),
    "NOT-PER-CHANNEL": lambda net, y: net.op("Mul", y, net.const(np.arange(9.0)[:, None])),
    "LAYOUT": lambda net, y: net.op("Mul", y, net.const(np.arange(8.0))),
    "NONFINITE": lambda net, y: net.op("Div", y, net.const(np.zeros((4, 1, 1)))),
}


@pytest.mark.parametrize("code", DECLINES)
def test_declines_and_leaves_the_graph_as_it_was(code):
    net = Net()
    y = DECLINES[code](net, net.conv(net.x, 4, 4, (3, 3)))
    done = rewrite(net.model(net.op("Relu", y)))
    assert_untouched(done)
    assert code in done.codes


def test_a_value_that_is_an_output_stays():
    net = Net()
    y = net.conv(net.x, 4, 4, (3, 3))
    done = rewrite(net.model(y, net.bn(y, 4)))
    assert_untouched(done)
    assert "OUTPUT" in done.codes


def test_a_weight_that_is_also_an_input_is_not_a_constant():
    net = Net()
    y = net.bn(net.conv(net.x, 4, 4, (3, 3)), 4)
    done = rewrite(net.model(y, extra_inputs=["c0"]))
    assert_untouched(done)
    assert "NOT-CONSTANT" in done.codes


def test_quantised_weights_and_values_are_left():
    net = Net(dtype=np.float32)
    net.constants |= {"w": np.ones((4, 4, 3, 3), np.int8), "zero": np.int8(0)}
    net.constants["step"] = np.float32(0.02)
    x = net.op("DequantizeLinear", net.op("QuantizeLinear", net.x, "step", "zero"), "step", "zero")
    y = net.op("Conv", x, net.op("DequantizeLinear", "w", "step", "zero"), pads=[1] * 4)
    done = rewrite(net.model(net.bn(y, 4)))
    assert_untouched(done)
    assert "NOT-CONSTANT" in done.codes


def test_alpha_of_a_gemm_is_applied_in_double():
    net = Net((3, 4), dtype=np.float32)
    weight, alpha = net.rng.standard_normal((4, 6)).astype(np.float32), np.float32(0.3)
    y = net.op("Gemm", net.x, net.const(weight), alpha=float(alpha))
    done = rewrite(net.model(net.op("Mul", y, net.const(np.array([0.7], np.float32)))))
    (made,) = (v.const_value.numpy() for v in done.graph.graph.initializers.values())
    exact = weight.astype(np.float64) * np.float64(alpha) * np.float64(np.float32(0.7))
    assert np.array_equal(made, exact.astype(np.float32))


def test_a_batchnorm_whose_variance_is_too_negative_stays():
    net = Net()
    y = net.bn(net.conv(net.x, 4, 4, (3, 3)), 4)
    net.constants["c5"][1] = -1.0
    done = rewrite(net.model(y))
    assert_untouched(done)
    assert "NONFINITE" in done.codes


@pytest.mark.parametrize(
    ("weight", "gamma", "code"), [(1e25, 1e15, "OVERFLOW"), (1e-30, 1e-15, "UNDERFLOW")]
)
def test_a_finite_network_stays_finite(weight, gamma, code):
    net = Net(dtype=np.float32)
    y = net.bn(net.conv(net.x, 4, 4, (3, 3), bias=False), 4)
    net.constants["c0"] *= np.float32(weight)
    net.constants["c1"] *= np.float32(gamma)
    done = rewrite(net.model(y))
    assert_untouched(done)
    assert code in done.codes


def test_shared_weights_are_not_edited():
    net = Net()
    first = net.op("Relu", net.bn(net.conv(net.x, 4, 4, (3, 3), bias=False), 4))
    second = net.op("Conv", first, "c0", pads=[1, 1, 1, 1])
    done = rewrite(net.model(net.op("Relu", second)))
    assert done.ops == {"Conv": 2, "Relu": 2}
    assert_same(done)


def test_a_lone_batchnorm_says_that_there_is_no_layer():
    net = Net()
    done = rewrite(net.model(net.op("Relu", net.bn(net.op("Relu", net.x), 4))))
    assert_untouched(done)
    assert "ALONE" in done.codes


def test_dynamic_batch_and_size():
    net = Net(("n", 4, "h", "w"))
    y = net.bn(net.conv(net.x, 4, 4, (3, 3), strides=[2, 2]), 4)
    done = rewrite(net.model(y))
    assert done.ops == {"Conv": 1}
    for shape in [(1, 4, 7, 7), (3, 4, 8, 5)]:
        assert_same(done, shape)


def test_provenance_names_the_nodes_that_were_replaced():
    net = Net()
    conv = net.conv(net.x, 4, 4, (3, 3))
    bn = net.bn(conv, 4)
    done = rewrite(net.model(bn))
    node = next(iter(done.graph.graph))
    assert node.metadata_props["flatfold.rewrite"] == "fold-batchnorm"
    assert set(json.loads(node.metadata_props["flatfold.replaced"])) == {conv, bn}


def test_running_twice_changes_nothing():
    net = Net()
    done = rewrite(net.model(net.bn(net.conv(net.x, 4, 4, (3, 3)), 4)))
    again = rewrite(done.after)
    assert_untouched(again)


def test_switched_off_by_name():
    net = Net()
    done = rewrite(net.model(net.bn(net.conv(net.x, 4, 4, (3, 3)), 4)), "merge-branches")
    assert_untouched(done)
    assert run(done.after, np.ones((2, 4, 9, 8)))[0].shape == (2, 4, 9, 8)


def test_a_scale_that_stays_behind_a_max_pool_has_a_reason():
    net = Net()
    y = net.op("MaxPool", net.conv(net.x, 4, 4, (1, 1)), kernel_shape=[2, 2])
    done = rewrite(net.model(net.op("Mul", y, net.const(np.full((4, 1, 1), -3.0)))))
    assert "ALONE" in done.codes


@pytest.mark.parametrize("size", [8, 28])
def test_a_norm_behind_a_concat_goes_into_the_layer_behind_alone(size: int):
    """InceptionNeXt (2024): taking the depthwise layers in as well would cost many times more."""
    net = Net((1, 16, size, size))
    x = net.op("Tanh", net.x)
    arms = [net.conv(x, 16, 16, kernel, groups=16) for kernel in ((3, 3), (1, 5), (5, 1))]
    y = net.bn(net.op("Concat", *arms, net.op("Relu", x), axis=1), 64)
    done = rewrite(net.model(net.op("Relu", net.conv(y, 64, 64, (1, 1), pads=[0] * 4))))
    assert "BatchNormalization" not in done.ops
    assert_same(done)


@pytest.mark.parametrize("size", [8, 14])
def test_a_norm_behind_a_residual_goes_into_an_unpadded_layer_behind(size: int):
    net = Net((1, 16, size, size))
    x = net.op("Tanh", net.x)
    y = net.conv(net.op("Relu", net.conv(x, 64, 16, (1, 1))), 16, 64, (1, 1))
    y = net.bn(net.op("Add", x, y), 16)
    y = net.conv(y, 32, 16, (2, 2), strides=[2, 2], pads=[0] * 4)
    done = rewrite(net.model(net.op("Relu", y)))
    assert done.ops == {"Tanh": 1, "Conv": 3, "Relu": 2, "Add": 1}
    assert_same(done)


def test_a_norm_behind_a_residual_stays_where_the_layer_behind_pads():
    net = Net((1, 16, 8, 8))
    x = net.op("Tanh", net.x)
    y = net.conv(net.op("Relu", net.conv(x, 64, 16, (1, 1))), 16, 64, (1, 1))
    y = net.conv(net.bn(net.op("Add", x, y), 16), 32, 16, (3, 3))
    done = rewrite(net.model(net.op("Relu", y)))
    assert done.ops["BatchNormalization"] == 1
    assert_same(done)


EINSUMS = {
    "nchw,oc->nohw": ((2, 4, 5, 6), (6, 4)),
    "nchw,co->nohw": ((2, 4, 5, 6), (4, 6)),
    "ncl, oc -> nol": ((2, 4, 7), (6, 4)),
    "oc,nchw->nohw": ((2, 4, 5, 6), (6, 4)),
    "nchw,c->nchw": ((2, 4, 5, 6), (4,)),
    "c,nchw->nchw": ((2, 4, 5, 6), (4,)),
}


@pytest.mark.parametrize("where", ["in front", "behind"])
@pytest.mark.parametrize("equation", EINSUMS)
def test_a_sum_over_the_channels_by_a_constant_is_a_layer(equation, where):
    shape, by = EINSUMS[equation]
    net = Net(shape)
    channels = by[0] if equation.startswith("oc") or "oc" in equation else by[-1]
    weight = net.const(net.rng.standard_normal(by))
    y = net.bn(net.op("Tanh", net.x), 4) if where == "in front" else net.op("Tanh", net.x)
    operands = (weight, y) if equation.partition(",")[0] in ("oc", "c") else (y, weight)
    y = net.op("Einsum", *operands, equation=equation)
    y = net.bn(y, channels) if where == "behind" else y
    done = rewrite(net.model(net.op("Relu", y)))
    assert not {"BatchNormalization", "Einsum"} & set(done.ops)
    assert done.checks.certified == done.checks.regions > 0, done.checks.doubts
    assert_same(done)


def test_a_sum_over_the_last_axis_by_a_constant_takes_a_scale():
    net = Net((2, 7, 4))
    y = net.op("Mul", net.op("Tanh", net.x), net.const(net.rng.standard_normal(4)))
    y = net.op("Einsum", y, net.const(net.rng.standard_normal((4, 6))), equation="blc,cd->bld")
    done = rewrite(net.model(net.op("Relu", y)))
    assert "Mul" not in done.ops
    assert_same(done)


@pytest.mark.parametrize(
    "equation, by",
    [
        ("nchw,oh->ncow", (6, 5)),  # over the rows of pixels
        ("nchw,chw->nchw", (4, 5, 6)),  # one number for each pixel
        ("nchw,och->now", (6, 4, 5)),  # over channels and rows
        ("nchw,co->nhwo", (4, 6)),  # and the axes turned
        ("...chw,oc->...ohw", (6, 4)),
    ],
)
def test_another_sum_is_no_layer(equation, by):
    net = Net((2, 4, 5, 6))
    y = net.bn(net.op("Tanh", net.x), 4)
    y = net.op("Einsum", y, net.const(net.rng.standard_normal(by)), equation=equation)
    done = rewrite(net.model(net.op("Relu", y)))
    assert done.ops["Einsum"] == done.ops["BatchNormalization"] == 1
    assert_same(done)


@pytest.mark.parametrize("size", [1, 3])
def test_an_einsum_that_repeats_one_channel_stays(size):
    """ONNX Runtime broadcasts an axis of one: "abcd,bz->azcd" sums over b, whatever its length."""
    net = Net((2, "c", 4, 5), dtype=np.float32)
    y = net.op(
        "Einsum", net.x, net.const(net.rng.standard_normal((1, 3))), equation="abcd,bz->azcd"
    )
    done = rewrite(net.model(net.op("Relu", y)))
    assert done.ops["Einsum"] == 1
    x = {"x": np.ones((2, size, 4, 5), np.float32)}
    before, after = (run_in_onnx_runtime(model, x) for model in (done.before, done.after))
    np.testing.assert_allclose(before[0], after[0], rtol=1e-6)
