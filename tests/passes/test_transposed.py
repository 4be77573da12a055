"""Transposed convolutions: stencils over an input that is spread out."""

from __future__ import annotations

import numpy as np
import pytest

from tests.nets import Net, assert_same, assert_untouched, rewrite


def up(net: Net, x: str, i: int, o: int, k=(3, 3), groups: int = 1, bias=True, **how) -> str:
    weight = net.const(net.rng.standard_normal((i, o // groups, *k)))
    extra = [net.const(net.rng.standard_normal(o))] if bias else []
    how = {"strides": [2] * len(k)} | how
    return net.op("ConvTranspose", x, weight, *extra, group=groups, **how)


HOW = [
    {},
    {"pads": [1, 1, 1, 1], "output_padding": [1, 1]},
    {"pads": [0, 1, 2, 1], "strides": [3, 2]},
    {"dilations": [2, 1], "pads": [1, 0, 0, 1]},
    {"strides": [1, 1], "pads": [1, 1, 1, 1]},
]


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("how", HOW)
def test_batchnorm_after(groups, how):
    net = Net()
    y = net.bn(up(net, net.x, 4, 8, groups=groups, **how), 8)
    done = rewrite(net.model(net.op("Relu", y)))
    assert done.ops.total() == 2
    assert done.ops["Relu"] == 1
    assert_same(done)


@pytest.mark.parametrize(("shape", "kernel"), [((2, 4, 9), (4,)), ((1, 4, 3, 4, 2), (2, 3, 2))])
def test_one_and_three_spatial_axes(shape, kernel):
    net = Net(shape)
    done = rewrite(net.model(net.op("Relu", net.bn(up(net, net.x, 4, 4, kernel), 4))))
    assert done.ops == {"ConvTranspose": 1, "Relu": 1}
    assert_same(done)


def test_pointwise_layers_on_either_side_compose():
    net = Net()
    wide = net.conv(net.x, 8, 4, (1, 1), False)
    y = net.conv(up(net, wide, 8, 8), 4, 8, (1, 1))
    done = rewrite(net.model(net.op("Relu", y)))
    assert done.ops == {"ConvTranspose": 1, "Relu": 1}
    assert_same(done)


def test_a_bias_in_front_is_not_spread_out():
    net = Net()
    done = rewrite(net.model(up(net, net.bn(net.x, 4), 4, 4)))
    assert_untouched(done)
    assert "BORDER-BIAS" in done.codes


def test_a_scale_in_front_is_folded():
    net = Net()
    scaled = net.op("Mul", net.x, net.const(net.rng.standard_normal((4, 1, 1))))
    done = rewrite(net.model(up(net, scaled, 4, 4)))
    assert done.ops == {"ConvTranspose": 1}
    assert_same(done)


def test_a_spatial_layer_in_front_is_left():
    net = Net()
    done = rewrite(net.model(up(net, net.conv(net.x, 32, 4, (3, 3), False), 32, 4)))
    assert_untouched(done)
    assert "UPSAMPLE" in done.codes


def test_parallel_ones_merge():
    net = Net()
    large = net.bn(up(net, net.x, 4, 4, (4, 4), pads=[1, 1, 1, 1]), 4)
    small = net.bn(up(net, net.x, 4, 4, (2, 2)), 4)
    done = rewrite(net.model(net.op("Relu", net.op("Add", large, small))))
    assert done.ops == {"ConvTranspose": 1, "Relu": 1}
    assert_same(done)


def test_beside_a_plain_convolution_of_another_value_it_stays():
    net = Net((1, 4, 4, 4))
    other = net.op("Relu", net.op("Resize", net.x, "", net.const(np.array([1.0, 1, 2, 2]))))
    net.constants["c0"] = net.constants["c0"].astype(np.float32)
    y = net.op("Add", net.bn(up(net, net.x, 4, 4, (2, 2)), 4), net.bn(other, 4))
    done = rewrite(net.model(net.op("Relu", y)))
    assert done.ops["ConvTranspose"] == 1
    assert_same(done)


# The maps are of 9 x 8 pixels, and the kernel of 3 x 3.
WANTED = [
    {"auto_pad": "SAME_UPPER"},
    {"auto_pad": "SAME_LOWER"},
    {"auto_pad": "SAME_UPPER", "strides": [1, 3], "dilations": [2, 1]},
    {"auto_pad": "SAME_LOWER", "strides": [3, 2], "output_padding": [1, 0]},
    {"auto_pad": "VALID"},
    {"output_shape": [18, 16]},
    {"output_shape": [17, 14], "pads": [2, 2, 2, 2]},
    {"output_shape": [18, 16], "auto_pad": "SAME_UPPER"},
    {"output_shape": [19, 14], "output_padding": [1, 1]},
]


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("how", WANTED)
def test_a_wanted_output_size(how, groups):
    net = Net()
    y = net.op("Relu", net.bn(up(net, net.x, 4, 8, groups=groups, **how), 8))
    done = rewrite(net.model(y))
    assert done.ops == {"ConvTranspose": 1, "Relu": 1}
    assert_same(done)
    assert not done.checks.doubts


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ({"output_shape": [18, 16]}, "unknown input size"),
        ({"auto_pad": "SAME_UPPER", "strides": [4, 4]}, "exceeds what there is"),
    ],
)
def test_a_wanted_output_size_that_tells_no_padding(how, reason):
    net = Net(("n", 4, "h", "w"))
    done = rewrite(net.model(net.bn(up(net, net.x, 4, 4, **how), 4)))
    assert_untouched(done)
    assert any(r.code == "AUTO-PAD" and reason in r.reason for r in done.remarks)


def test_auto_pad_at_an_open_size():
    net = Net(("n", 4, "h", "w"))
    done = rewrite(net.model(net.bn(up(net, net.x, 4, 4, auto_pad="SAME_LOWER"), 4)))
    assert done.ops == {"ConvTranspose": 1}
    for shape in [(1, 4, 7, 7), (3, 4, 8, 5), (1, 4, 1, 2)]:
        assert_same(done, shape)


def test_dynamic_batch_and_size():
    net = Net(("n", 4, "h", "w"))
    done = rewrite(net.model(net.bn(up(net, net.x, 4, 4, pads=[1, 1, 1, 1]), 4)))
    assert done.ops == {"ConvTranspose": 1}
    for shape in [(1, 4, 7, 7), (3, 4, 8, 5), (1, 4, 1, 2)]:
        assert_same(done, shape)
