"""Chains that cost more when composed, unless the result is part of a larger kernel."""

from __future__ import annotations

import pytest

from tests.nets import Net, assert_same, assert_untouched, rewrite


@pytest.mark.parametrize("channels", [8, 64])
def test_a_chain_that_is_dear_alone_costs_nothing_in_a_larger_kernel(channels):
    """DBB: a 1x1 in front of an average pool beside a 3x3, at any width."""
    net = Net((1, channels, 28, 28))
    kernel = net.bn(net.conv(net.x, channels, channels, (3, 3), bias=False), channels)
    small = net.conv(net.x, channels, channels, (1, 1), bias=False)
    mean = net.op("AveragePool", small, kernel_shape=[3, 3], pads=[1] * 4, count_include_pad=1)
    total = net.op("Add", kernel, net.bn(mean, channels))
    done = rewrite(net.model(net.op("Relu", total)))
    assert done.ops == {"Conv": 1, "Relu": 1}
    assert_same(done)


def test_a_chain_that_is_dear_stays_where_nothing_is_beside_it():
    net = Net((1, 64, 28, 28))
    small = net.conv(net.x, 64, 64, (1, 1), bias=False)
    mean = net.op("AveragePool", small, kernel_shape=[3, 3], pads=[1] * 4, count_include_pad=1)
    done = rewrite(net.model(net.op("Relu", mean)))
    assert_untouched(done)
    assert "COST" in done.codes
