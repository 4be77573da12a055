"""Composing layers that follow each other, exactly under the border rule or not at all."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from onnx.reference import ReferenceEvaluator

from tests.nets import Net, assert_same, assert_untouched, rewrite

NONE = [0, 0, 0, 0]


def bottleneck_free(net: Net, first, second, biased=(True, True), **how) -> str:
    """4 -> 8 -> 4: wide in the middle, so that one layer is always cheaper."""
    y = net.conv(net.x, 8, 4, first, biased[0], **how)
    return net.conv(y, 4, 8, second, biased[1], pads=NONE)


@pytest.mark.parametrize("strides", [[1, 1], [2, 2]])
def test_pointwise_after_spatial(strides):
    net = Net()
    done = rewrite(net.model(bottleneck_free(net, (3, 3), (1, 1), strides=strides)))
    assert done.ops == {"Conv": 1}
    assert done.applied == ["compose-convs"]
    assert_same(done)


def test_valid_after_valid():
    net = Net()
    done = rewrite(net.model(bottleneck_free(net, (1, 1), (3, 2))))
    assert done.ops == {"Conv": 1}
    assert_same(done)


def test_padded_after_pointwise_needs_the_pointwise_to_have_no_bias():
    for bias, convs in [(False, 1), (True, 2)]:
        net = Net()
        y = net.conv(net.x, 8, 4, (1, 1), bias)
        done = rewrite(net.model(net.conv(y, 4, 8, (3, 3))))
        assert done.ops == {"Conv": convs}
        assert ("BORDER-BIAS" in done.codes) == bias
        assert_same(done)


def test_padded_after_padded_is_wrong_on_the_rim_and_left():
    net = Net()
    y = net.conv(net.x, 32, 4, (3, 3), False)
    done = rewrite(net.model(net.conv(y, 4, 32, (3, 3))))
    assert_untouched(done)
    assert "BORDER" in done.codes


def test_full_padding_first_makes_any_padding_after_it_exact():
    """pads = kernel - 1: every window that touches the picture is kept, the rest is zero."""
    net = Net()
    y = net.conv(net.x, 32, 4, (3, 3), False, pads=[2, 2, 2, 2])
    done = rewrite(net.model(net.conv(y, 4, 32, (3, 3))))
    assert done.ops == {"Conv": 1}
    assert_same(done)


@pytest.mark.parametrize("groups", [(2, 2), (2, 4), (4, 2), (2, 1)])
def test_groups(groups):
    net = Net()
    y = net.conv(net.x, 16, 4, (1, 1), groups=groups[0])
    done = rewrite(net.model(net.conv(y, 4, 16, (1, 1), groups=groups[1])))
    assert done.ops == {"Conv": 1}
    assert_same(done)


def test_three_gemms_in_a_row():
    net = Net((3, 4))
    y = net.x
    for i, o in [(4, 16), (16, 16), (16, 3)]:
        bias = net.const(net.rng.standard_normal(o))
        y = net.op("Gemm", y, net.const(net.rng.standard_normal((i, o))), bias)
    done = rewrite(net.model(net.op("Relu", y)))
    assert done.ops == {"Gemm": 1, "Relu": 1}
    assert len(done.applied) == 1
    assert_same(done)


def test_zero_pad_in_front_of_a_conv():
    net = Net()
    pads = net.const(np.array([0, 0, 1, 0, 0, 0, 2, 1]))
    y = net.op("Pad", net.x, pads)
    done = rewrite(net.model(net.conv(y, 4, 4, (3, 3), pads=NONE)))
    assert done.ops == {"Conv": 1}
    assert_same(done)


def test_reflecting_pad_is_not_zero():
    net = Net()
    y = net.op("Pad", net.x, net.const(np.array([0, 0, 1, 1, 0, 0, 1, 1])), mode="reflect")
    done = rewrite(net.model(net.conv(y, 4, 4, (3, 3), pads=NONE)))
    assert_untouched(done)
    assert "PAD-MODE" in done.codes


def test_padding_by_the_offset_of_the_norm_makes_a_sequence_exact():
    """DBB (2021): 1x1 - BN - pad by what BN gives to 0 - KxK - BN, beside a KxK - BN."""
    net = Net()
    y = net.bn(net.conv(net.x, 8, 4, (1, 1), False), 8)
    gamma, beta, mean, var = (net.constants[f"c{i}"] for i in range(1, 5))
    offset = net.const((beta - mean * gamma / np.sqrt(var + np.float32(1e-5))).reshape(-1, 1, 1))
    y = net.op("Pad", net.op("Sub", y, offset), net.const(np.array([0, 0, 1, 1, 0, 0, 1, 1])))
    y = net.bn(net.conv(net.op("Add", y, offset), 4, 8, (3, 3), False, pads=NONE), 4)
    y = net.op("Add", y, net.bn(net.conv(net.x, 4, 4, (3, 3), False), 4))
    done = rewrite(net.model(net.op("Relu", y)))
    assert done.ops == {"Conv": 1, "Relu": 1}
    assert_same(done)


def test_padding_written_as_an_attribute_moves_into_the_convolution():
    net = Net(opset=9)
    y = net.op("Pad", net.x, pads=[0, 0, 1, 1, 0, 0, 1, 1])
    done = rewrite(net.model(net.conv(y, 4, 4, (3, 3), pads=NONE)))
    assert done.ops == {"Conv": 1}
    x = np.random.default_rng(0).standard_normal(net.shape)
    same = ReferenceEvaluator(done.after).run(None, {"x": x})[0]
    padded = np.pad(x, [(0, 0), (0, 0), (1, 1), (1, 1)])
    weight = net.constants["c0"], net.constants["c1"]
    expected = torch.nn.functional.conv2d(*map(torch.from_numpy, (padded, *weight))).numpy()
    bound = 4 * 9 * 2.0**-53 * np.abs(expected).max()  # sums of 36 products
    np.testing.assert_allclose(same, expected, rtol=0, atol=bound)


@pytest.mark.parametrize("kind", ["depthwise then pointwise", "bottleneck"])
def test_what_is_exact_but_dear_is_left_with_its_ratio(kind):
    net = Net((1, 32, 16, 16))
    if kind == "bottleneck":
        y = net.conv(net.conv(net.x, 2, 32, (1, 1), False), 32, 2, (1, 1), False)
    else:
        y = net.conv(net.x, 32, 32, (7, 7), groups=32)
        y = net.conv(y, 32, 32, (1, 1))
    done = rewrite(net.model(y))
    assert_untouched(done)
    assert any("multiplies" in r.reason for r in done.remarks if r.code == "COST")


def test_a_value_read_twice_is_not_composed_away():
    net = Net()
    y = net.conv(net.x, 8, 4, (1, 1))
    done = rewrite(net.model(net.conv(y, 4, 8, (1, 1)), net.op("Relu", y)))
    assert_untouched(done)
    assert "SHARED" in done.codes
