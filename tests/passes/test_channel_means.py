"""The mean over the channels, and what is less its mean: linear, as a row or a square of 1 / C."""

from __future__ import annotations

import numpy as np
import pytest

from tests.nets import Net, assert_same, assert_untouched, rewrite


def mean(net: Net, x: str, axis: int = 1, keepdims: int = 1) -> str:
    return net.op("ReduceMean", x, net.const(np.array([axis])), keepdims=keepdims)


@pytest.mark.parametrize("shape", [(2, 4, 9, 8), (2, 4, 7), ("n", 4, "h", "w"), (1, 4, 3, 4, 2)])
@pytest.mark.parametrize("bias", [True, False])
def test_a_layer_less_its_mean_is_a_layer(shape, bias):
    """As in front of the channels-first LayerNorm of ConvNeXt."""
    net = Net(shape)
    y = net.conv(net.x, 20, 4, (3,) * (len(shape) - 2), bias)
    done = rewrite(net.model(net.op("Relu", net.op("Sub", y, mean(net, y)))))
    assert done.ops == {"Conv": 1, "Relu": 1}
    assert not done.checks.doubts
    sizes = [(2, 4, 9, 8), (1, 4, 4, 5)] if "h" in shape else [shape]
    for size in sizes:
        assert_same(done, size)


def test_opset_13_lists_the_axes_as_an_attribute():
    net = Net(opset=13)
    y = net.conv(net.x, 20, 4, (3, 3))
    less = net.op("Sub", y, net.op("ReduceMean", y, axes=[1]))
    done = rewrite(net.model(net.op("Relu", less)))
    assert done.ops == {"Conv": 1, "Relu": 1}
    assert_same(done)


def test_the_mean_of_a_layer_between_two_layers():
    net = Net()
    y = mean(net, net.conv(net.x, 20, 4, (3, 3)))
    done = rewrite(net.model(net.op("Relu", net.conv(y, 4, 1, (1, 1)))))
    assert done.ops == {"Conv": 1, "Relu": 1}
    assert_same(done)


def test_the_norm_behind_it_keeps_its_own_mean():
    net = Net()
    y = net.conv(net.x, 20, 4, (3, 3))
    less = net.op("Sub", y, mean(net, y))
    spread = net.op("Add", mean(net, net.op("Mul", less, less)), net.const(np.array(1e-6)))
    done = rewrite(net.model(net.op("Div", less, net.op("Sqrt", spread))))
    assert done.ops == {"Conv": 1, "Mul": 1, "ReduceMean": 1, "Add": 1, "Sqrt": 1, "Div": 1}
    assert_same(done)


@pytest.mark.parametrize("axis", [0, 2, -1])
def test_a_mean_over_another_axis_stays(axis):
    net = Net()
    y = net.conv(net.x, 20, 4, (3, 3))
    done = rewrite(net.model(net.op("Sub", y, mean(net, y, axis))))
    assert_untouched(done)


def test_a_mean_that_drops_its_axis_stays():
    net = Net((4, 4, 4, 4))
    y = net.conv(net.x, 4, 4, (3, 3))
    less = net.op("Sub", y, mean(net, y, 1, keepdims=0))
    assert_untouched(rewrite(net.model(less)))


def test_without_a_layer_nothing_changes():
    net = Net()
    y = net.op("Relu", net.x)
    assert_untouched(rewrite(net.model(net.op("Sub", y, mean(net, y)))))


def test_a_layer_that_is_read_elsewhere_stays():
    """Two layers in place of one would cost more than the mean."""
    net = Net()
    y = net.conv(net.x, 64, 4, (3, 3))
    less = net.op("Sub", y, mean(net, y))
    done = rewrite(net.model(net.op("Mul", less, net.op("Relu", y))))
    assert_untouched(done)


def test_another_value_of_one_channel_is_repeated_by_the_sum_as_before():
    net = Net()
    y, gate = net.conv(net.x, 20, 4, (3, 3)), net.op("Sigmoid", net.conv(net.x, 1, 4, (1, 1)))
    assert_untouched(rewrite(net.model(net.op("Add", y, gate))))


def test_a_layer_of_one_channel_beside_one_of_many():
    net = Net()
    y = net.op("Add", net.conv(net.x, 20, 4, (3, 3)), net.conv(net.x, 1, 4, (1, 1)))
    done = rewrite(net.model(net.op("Relu", y)))
    assert done.ops == {"Conv": 1, "Relu": 1}
    assert_same(done)
