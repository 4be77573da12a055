"""An activation behind a max pool moves in front of it, to the convolution there."""

from __future__ import annotations

import numpy as np
import pytest

from tests.nets import Net, assert_same, assert_untouched, rewrite

POOL = {"kernel_shape": [2, 2], "strides": [2, 2]}


def order(done) -> list[str]:
    return [node.op_type for node in done.graph.graph]


@pytest.mark.parametrize("shape", [(2, 4, 9, 8), ("n", 4, "h", "w")])
@pytest.mark.parametrize("kind", ["Relu", "LeakyRelu", "Clip"])
@pytest.mark.parametrize("pads", [[0] * 4, [1] * 4])
def test_it_moves_to_the_convolution(kind, shape, pads):
    net = Net(shape)
    pool = net.op("MaxPool", net.conv(net.x, 6, 4, (3, 3)), pads=pads, **POOL)
    limits = [net.const(np.array(n)) for n in (-0.25, 0.5)] if kind == "Clip" else []
    done = rewrite(net.model(net.op(kind, pool, *limits)))
    assert order(done) == ["Conv", kind, "MaxPool"]
    assert done.applied == ["hoist-activations"]
    assert_same(done, (2, 4, 9, 8))
    assert_untouched(rewrite(done.after))


def test_in_half_precision():
    net = Net(dtype=np.float16)
    pool = net.op("MaxPool", net.conv(net.x, 6, 4, (3, 3)), **POOL)
    assert order(rewrite(net.model(net.op("Relu", pool)))) == ["Conv", "Relu", "MaxPool"]


def test_vanillanet_s_stage_comes_out_as_it_should():
    """conv - norm - pool - relu: norm into the convolution, relu behind it."""
    net = Net()
    pool = net.op("MaxPool", net.bn(net.conv(net.x, 6, 4, (1, 1)), 6), **POOL)
    done = rewrite(net.model(net.op("Relu", pool)))
    assert order(done) == ["Conv", "Relu", "MaxPool"]
    assert_same(done)


@pytest.mark.parametrize(
    "how",
    ["falls", "no layer", "shared", "output", "hangs over", "only padding", "open limits"],
)
def test_it_stays_where_that_is_not_the_same_or_no_gain(how):
    net = Net()
    y = net.op("Tanh", net.x) if how == "no layer" else net.conv(net.x, 6, 4, (3, 3))
    attributes = {**POOL, "ceil_mode": int(how == "hangs over")}
    if how == "only padding":
        attributes = {"kernel_shape": [2, 2], "dilations": [2, 2], "pads": [1] * 4}
    pool = net.op("MaxPool", y, **attributes)
    outputs = []
    if how == "falls":
        z = net.op("LeakyRelu", pool, alpha=-0.5)
    elif how == "open limits":
        z = net.op("Clip", pool, net.op("ReduceMin", net.x, keepdims=0))
    else:
        z = net.op("Relu", pool)
    if how == "shared":
        z = net.op("Mul", z, net.op("Sigmoid", pool))
    if how == "output":
        outputs = [pool]
    assert_untouched(rewrite(net.model(z, *outputs)))
