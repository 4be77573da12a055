"""Matrix products along the last axis: Linear layers of channels-last blocks and of sequences."""

from __future__ import annotations

import numpy as np
import pytest

from tests.nets import Net, assert_same, assert_untouched, rewrite

SHAPES = [(2, 5, 4), (2, 3, 5, 4), (1, 2, 3, 2, 4)]


def linear(net: Net, x: str, i: int, o: int, bias: bool = True) -> str:
    y = net.op("MatMul", x, net.const(net.rng.standard_normal((i, o))))
    return net.op("Add", y, net.const(net.rng.standard_normal(o))) if bias else y


def vector(net: Net, c: int) -> str:
    return net.const(net.rng.standard_normal(c))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("left", [True, False])
def test_layer_scale_after_a_linear_layer(shape, left):
    net = Net(shape)
    y, scale = linear(net, net.x, 4, 6), vector(net, 6)
    y = net.op("Mul", scale, y) if left else net.op("Mul", y, scale)
    done = rewrite(net.model(net.op("Relu", y)))
    assert done.ops == {"MatMul": 1, "Add": 1, "Relu": 1}
    assert done.applied == ["fold-batchnorm"]
    assert_same(done)


@pytest.mark.parametrize("shape", SHAPES)
def test_affine_map_in_front(shape):
    net = Net(shape)
    y = net.op("Add", net.op("Mul", net.x, vector(net, 4)), vector(net, 4))
    done = rewrite(net.model(net.op("Relu", linear(net, y, 4, 6))))
    assert done.ops == {"MatMul": 1, "Add": 1, "Relu": 1}
    assert_same(done)


@pytest.mark.parametrize("shape", SHAPES)
def test_linear_after_linear(shape):
    net = Net(shape)
    y = linear(net, linear(net, net.x, 4, 16), 16, 4)
    done = rewrite(net.model(net.op("Relu", y)))
    assert done.ops == {"MatMul": 1, "Add": 1, "Relu": 1}
    assert done.applied == ["compose-convs"]
    assert_same(done)


@pytest.mark.parametrize("shape", SHAPES)
def test_parallel_linear_layers_and_the_identity(shape):
    net = Net(shape)
    y = net.op("Sub", linear(net, net.x, 4, 4), linear(net, net.x, 4, 4))
    done = rewrite(net.model(net.op("Relu", net.op("Add", y, net.x))))
    assert done.ops == {"MatMul": 1, "Add": 1, "Relu": 1}
    assert_same(done)


def test_a_residual_stays_an_addition():
    """ConvNeXt's block end: x + gamma * Linear(y)."""
    net = Net((2, 3, 5, 4))
    inner = net.op("Relu", linear(net, net.x, 4, 8))
    y = net.op("Mul", linear(net, inner, 8, 4), vector(net, 4))
    done = rewrite(net.model(net.op("Relu", net.op("Add", net.x, y))))
    assert done.ops == {"MatMul": 2, "Add": 3, "Relu": 2}
    assert_same(done)


@pytest.mark.parametrize("shape", SHAPES)
def test_single_numbers_fit_either_layout(shape):
    net = Net(shape)
    half, two = net.const(np.array(0.5)), net.const(np.full((1,), 2.0))
    y = net.op("Mul", linear(net, net.op("Mul", net.x, half), 4, 6), two)
    done = rewrite(net.model(net.op("Relu", net.op("Add", net.op("Neg", y), two))))
    assert done.ops == {"MatMul": 1, "Add": 1, "Relu": 1}
    assert_same(done)


def test_a_norm_along_axis_one_does_not_fold_into_a_layer_along_the_last():
    net = Net((2, 4, 5, 4))
    done = rewrite(net.model(linear(net, net.bn(net.x, 4), 4, 4, False)))
    assert_untouched(done)
    assert "LAYOUT" in done.codes


def test_a_convolution_and_a_matrix_do_not_mix():
    net = Net((2, 4, 5, 4))
    y = net.op("Add", net.conv(net.x, 4, 4, (1, 1)), linear(net, net.x, 4, 4, False))
    done = rewrite(net.model(y))
    assert_untouched(done)


def test_a_product_of_two_computed_values_stays():
    net = Net((2, 4, 4))
    done = rewrite(net.model(net.op("MatMul", net.x, net.op("Relu", net.x))))
    assert_untouched(done)


def test_running_twice_changes_nothing():
    net = Net((2, 3, 4))
    y = net.op("Mul", linear(net, net.x, 4, 6), vector(net, 6))
    assert_untouched(rewrite(rewrite(net.model(net.op("Relu", y))).after))


def test_dynamic_sizes():
    net = Net(("n", "length", 4))
    y = net.op("Add", linear(net, net.x, 4, 4), net.op("Mul", net.x, vector(net, 4)))
    done = rewrite(net.model(net.op("Relu", y)))
    assert done.ops == {"MatMul": 1, "Add": 1, "Relu": 1}
    for shape in [(1, 1, 4), (3, 7, 4)]:
        assert_same(done, shape)
