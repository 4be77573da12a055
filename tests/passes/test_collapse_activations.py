"""Activations that do nothing, and the layers that meet once they are gone."""

from __future__ import annotations

import numpy as np
import pytest

from tests.nets import Net, assert_same, assert_untouched, rewrite


def sandwich(net: Net, middle) -> str:
    """Conv3x3 - BN - activation - Conv1x1 - BN, VanillaNet's stem and stage."""
    y = net.bn(net.conv(net.x, 8, 4, (3, 3)), 8, eps=1e-6)
    return net.bn(net.conv(middle(y), 4, 8, (1, 1)), 4, eps=1e-6)


def test_leaky_relu_of_slope_one_lets_its_neighbours_compose():
    net = Net()
    y = sandwich(net, lambda y: net.op("LeakyRelu", y, alpha=1.0))
    done = rewrite(net.model(net.op("Relu", y)))
    assert done.ops == {"Conv": 1, "Relu": 1}
    assert len(done.applied) == 1
    assert_same(done)


@pytest.mark.parametrize("shape", [(1,), (8, 1, 1)])
def test_prelu_of_slopes_one(shape):
    net = Net()
    y = sandwich(net, lambda y: net.op("PRelu", y, net.const(np.ones(shape))))
    done = rewrite(net.model(net.op("Relu", y)))
    assert done.ops == {"Conv": 1, "Relu": 1}
    assert_same(done)


BENT = {
    "missing alpha is 0.01": lambda net, y: net.op("LeakyRelu", y),
    "alpha 0.99": lambda net, y: net.op("LeakyRelu", y, alpha=0.99),
    "one slope": lambda net, y: net.op(
        "PRelu", y, net.const(np.array([1.0] * 7 + [0.5])[:, None, None])
    ),
    "clip": lambda net, y: net.op("Clip", y, net.const(np.array(-9.0)), net.const(np.array(9.0))),
}


@pytest.mark.parametrize("name", BENT)
def test_an_activation_that_still_bends_stays(name):
    net = Net()
    kind = BENT[name]
    done = rewrite(net.model(net.op("Relu", sandwich(net, lambda y: kind(net, y)))))
    assert done.ops["Conv"] == 2
    assert done.ops["BatchNormalization"] == 0
    assert "collapse-activations" not in done.applied
    assert_same(done)


REDUNDANT = {
    "Relu of Relu": ("Relu", lambda net, y: net.op("Relu", y)),
    "Relu of a pooled Relu": (
        "Relu",
        lambda net, y: net.op("Relu", net.op("GlobalAveragePool", y)),
    ),
    "LeakyRelu of Relu": ("Relu", lambda net, y: net.op("LeakyRelu", y, alpha=0.3)),
    "Clip of Sigmoid": (
        "Sigmoid",
        lambda net, y: net.op("Clip", y, net.const(np.array(0.0)), net.const(np.array(1.0))),
    ),
    "Clip without limits": ("Tanh", lambda net, y: net.op("Clip", y)),
}


@pytest.mark.parametrize("name", REDUNDANT)
def test_an_activation_that_cannot_act_goes(name):
    first, second = REDUNDANT[name]
    net = Net()
    y = second(net, net.op(first, net.x))
    done = rewrite(net.model(net.op("Exp", y)))
    assert done.applied == ["collapse-activations"]
    assert done.ops[first] == 1
    assert done.ops.total() == len(net.nodes) - 1
    assert_same(done)


def test_clip_of_a_wider_range_still_acts():
    net = Net()
    limits = (net.const(np.array(0.0)), net.const(np.array(0.5)))
    done = rewrite(net.model(net.op("Clip", net.op("Sigmoid", net.x), *limits)))
    assert_untouched(done)


def test_a_computed_limit_is_not_known():
    net = Net()
    limits = (net.const(np.array(0.0)), net.op("ReduceMax", net.x, keepdims=0))
    done = rewrite(net.model(net.op("Clip", net.op("Sigmoid", net.x), *limits)))
    assert_untouched(done)
    assert "NOT-CONSTANT" in done.codes


def test_switched_off_by_name():
    net = Net()
    y = sandwich(net, lambda y: net.op("LeakyRelu", y, alpha=1.0))
    names = ("fold-batchnorm", "merge-branches", "compose-convs")
    done = rewrite(net.model(net.op("Relu", y)), *names)
    assert done.ops == {"Conv": 2, "LeakyRelu": 1, "Relu": 1}
