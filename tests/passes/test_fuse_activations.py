"""Activations that exporters spell out become one operator, where they are exactly that."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tests.fuzz.sketch import run
from tests.nets import Net, assert_untouched, rewrite


def number(net: Net, value: float) -> str:
    return net.const(np.array(float(value)))


def clipped(net: Net, y: str, shift: float = 3, low: float = 0, top: float = 6) -> str:
    moved = net.op("Add", number(net, shift), y)
    return net.op("Clip", moved, number(net, low), number(net, top))


def divided_last(net: Net, y: str, **other: float) -> str:
    return net.op("Div", net.op("Mul", y, clipped(net, y, **other)), number(net, 6))


def divided_first(net: Net, y: str, **other: float) -> str:
    return net.op("Mul", y, net.op("Div", clipped(net, y, **other), number(net, 6)))


def multiplied(net: Net, y: str, **other: float) -> str:
    return net.op("Mul", number(net, 1 / 6), net.op("Mul", clipped(net, y, **other), y))


def gate(net: Net, y: str, **other: float) -> str:
    return net.op("Div", clipped(net, y, **other), number(net, 6))


def gate_by_name(net: Net, y: str) -> str:
    return net.op("Mul", y, net.op("HardSigmoid", y, alpha=1 / 6, beta=0.5))


SWISHES = [divided_last, divided_first, multiplied]


def net_of(activation: Callable[..., str], opset: int = 18, dtype=np.float32, **other) -> Net:
    net = Net(opset=opset, dtype=dtype)
    y = net.conv(net.x, 6, 4, (3, 3))
    net.y = net.conv(activation(net, y, **other), 4, 6, (1, 1))
    return net


@pytest.mark.parametrize("activation", [*SWISHES, gate_by_name])
def test_a_hard_swish_is_one_operator(activation):
    net = net_of(activation, dtype=np.float32)
    done = rewrite(net.model(net.y))
    assert done.ops == {"Conv": 2, "HardSwish": 1}
    assert done.applied == ["fuse-activations"]
    assert done.checks.worst <= 1.01
    assert_untouched(rewrite(done.after))


@pytest.mark.parametrize("opset", [13, 18])
@pytest.mark.parametrize("activation", SWISHES)
def test_both_compute_the_same_on_either_side_of_the_limits(activation, opset):
    net = net_of(activation, opset)
    done = rewrite(net.model(net.y))
    for scale in (0.1, 1.0, 100.0):
        x = {"x": (scale * net.rng.standard_normal(net.shape)).astype(np.float32)}
        (one,), (two,) = (run(model, x) for model in (done.before, done.after))
        rounding = 64 * 2.0**-24  # 36 products, the activation, 6 products
        np.testing.assert_allclose(two, one, rtol=0, atol=rounding * np.abs(one).max())


def test_in_double_precision_it_stays():
    net = net_of(divided_last, dtype=np.float64)
    assert "HardSwish" not in rewrite(net.model(net.y)).ops


@pytest.mark.parametrize("activation", SWISHES)
def test_before_opset_14_it_is_a_hard_sigmoid_and_a_product(activation):
    net = net_of(activation, opset=13)
    assert rewrite(net.model(net.y)).ops == {"Conv": 2, "HardSigmoid": 1, "Mul": 1}
    net = net_of(activation, opset=13)
    slow = rewrite(net.model(net.y), target="openvino")
    assert "HardSigmoid" not in slow.ops


def test_a_hard_sigmoid_is_one_operator():
    net = net_of(gate)
    assert rewrite(net.model(net.y)).ops == {"Conv": 2, "HardSigmoid": 1}


@pytest.mark.parametrize("other", [{"shift": 2.5}, {"low": -1}, {"top": 5}])
@pytest.mark.parametrize("activation", [*SWISHES, gate])
def test_with_other_constants_it_is_something_else(activation, other):
    net = net_of(activation, **other)
    assert not {"HardSwish", "HardSigmoid"} & set(rewrite(net.model(net.y)).ops)


def test_what_is_read_elsewhere_stays():
    net = Net(dtype=np.float32)
    y = net.conv(net.x, 4, 4, (3, 3))
    inner = clipped(net, y)
    product = net.op("Div", net.op("Mul", y, inner), number(net, 6))
    done = rewrite(net.model(net.op("Max", product, inner)))
    assert "Clip" in done.ops and "HardSwish" not in done.ops


def test_another_value_times_the_gate_is_no_hard_swish():
    net = Net(dtype=np.float32)
    y = net.conv(net.x, 4, 4, (3, 3))
    done = rewrite(net.model(net.op("Mul", net.op("Tanh", y), gate(net, y))))
    assert done.ops == {"Conv": 1, "Tanh": 1, "HardSigmoid": 1, "Mul": 1}
