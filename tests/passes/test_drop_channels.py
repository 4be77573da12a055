"""Channels that are constant leave the layer that makes them and the one that reads them."""

from __future__ import annotations

import numpy as np
import pytest

from tests.fuzz.sketch import run
from tests.nets import Net, assert_same, assert_untouched, rewrite

NONE = [0, 0, 0, 0]
KINDS = [
    *((kind, {}) for kind in ("Relu", "LeakyRelu", "Sigmoid", "Tanh", "HardSwish", "Softplus")),
    *((kind, {}) for kind in ("Mish", "Swish")),
    ("Swish", {"alpha": 1.75}),
]


def pruned(net: Net, x: str, o: int, i: int, k, dead, bias=True, **how) -> str:
    """A convolution with filters of zeros."""
    y = net.conv(x, o, i, k, bias, **how)
    net.constants[net.nodes[-1].input[1]][dead] = 0
    return y


def widths(done) -> list[list[int]]:
    """Outputs and inputs of each convolution."""
    found = []
    for node in done.graph.graph:
        if node.op_type in ("Conv", "Gemm"):
            found.append([*node.inputs[1].shape[:2]])
    return found


@pytest.mark.parametrize("shape", [(2, 4, 9, 8), ("n", 4, "h", "w")])
@pytest.mark.parametrize(("kind", "attributes"), KINDS)
def test_dead_filters_go_and_leave_a_bias(kind, attributes, shape):
    net = Net(shape, opset=24 if kind == "Swish" else 20)
    y = net.op(kind, pruned(net, net.x, 8, 4, (3, 3), [1, 5, 6]), **attributes)
    done = rewrite(net.model(net.op("Relu", net.conv(y, 6, 8, (3, 3), pads=NONE))))
    assert widths(done) == [[5, 4], [6, 5]]
    assert done.applied == ["drop-channels"]
    assert_same(done, (2, 4, 9, 8))
    assert_untouched(rewrite(done.after))


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_through_a_gelu(approximate):
    """In single precision, which the constants of the evaluator have."""
    net = Net(opset=20, dtype=np.float32)
    y = net.op("Gelu", pruned(net, net.x, 8, 4, (3, 3), [1, 5, 6]), approximate=approximate)
    done = rewrite(net.model(net.op("Relu", net.conv(y, 6, 8, (3, 3), pads=NONE))))
    assert widths(done) == [[5, 4], [6, 5]]
    assert done.checks.certified == 1
    x = {"x": net.rng.standard_normal(net.shape).astype(np.float32)}
    (one,), (two,) = (run(model, x) for model in (done.before, done.after))
    rounding = (36 + 72) * 2.0**-24  # of the sums of products
    np.testing.assert_allclose(two, one, rtol=0, atol=rounding * np.abs(one).max())


@pytest.mark.parametrize("rank", [3, 5])
def test_other_ranks(rank):
    axes = rank - 2
    net = Net((2, 4, 9, 8, 7)[:rank])
    y = net.op("Relu", pruned(net, net.x, 8, 4, (3,) * axes, [0]))
    done = rewrite(net.model(net.conv(y, 6, 8, (3,) * axes, pads=[0] * 2 * axes)))
    assert widths(done) == [[7, 4], [6, 7]]
    assert_same(done)


def test_in_half_precision():
    net = Net(dtype=np.float16)
    y = net.op("Relu", pruned(net, net.x, 8, 4, (3, 3), [1, 5]))
    assert widths(rewrite(net.model(net.conv(y, 6, 8, (1, 1))))) == [[6, 4], [6, 6]]


def test_a_constant_of_zero_may_meet_padding_and_no_other():
    net = Net()
    y = pruned(net, net.x, 8, 4, (3, 3), [1, 5])
    net.constants[net.nodes[-1].input[2]][[1, 5]] = [-0.5, 0.5]  # Relu makes 0 and 0.5 of these
    done = rewrite(net.model(net.conv(net.op("Relu", y), 6, 8, (3, 3))))
    assert widths(done) == [[7, 4], [6, 7]]
    assert_same(done)


def test_a_norm_of_gamma_zero_kills_the_channels_of_a_depthwise_layer_and_of_the_one_before():
    net = Net()
    y = net.op("Relu", net.conv(net.x, 8, 4, (1, 1)))
    y = net.bn(net.conv(y, 8, 8, (3, 3), groups=8), 8)
    net.constants[net.nodes[-1].input[1]][[2, 3]] = 0
    done = rewrite(net.model(net.conv(net.op("Relu", y), 6, 8, (1, 1))))
    assert widths(done) == [[6, 4], [6, 1], [6, 6]]
    assert_same(done)


def test_a_dead_channel_comes_alive_in_a_padded_depthwise_layer():
    net = Net()
    y = pruned(net, net.x, 8, 4, (1, 1), [2])
    net.constants[net.nodes[-1].input[2]][2] = 0.5
    y = net.conv(net.op("Relu", y), 8, 8, (3, 3), groups=8)
    assert_untouched(rewrite(net.model(net.conv(net.op("Relu", y), 6, 8, (1, 1)))))


def test_through_pools_to_a_linear_layer():
    net = Net()
    y = net.op("Relu", pruned(net, net.x, 8, 4, (3, 3), [0, 7]))
    y = net.op("MaxPool", y, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    y = net.op("GlobalAveragePool", y)
    done = rewrite(net.model(net.op("Relu", net.conv(y, 6, 8, (1, 1)))))
    assert widths(done) == [[6, 4], [6, 6]]
    assert_same(done)


def test_one_channel_stays_if_all_are_dead():
    net = Net()
    y = net.op("Relu", pruned(net, net.x, 8, 4, (3, 3), np.s_[:]))
    done = rewrite(net.model(net.op("Relu", net.conv(y, 6, 8, (1, 1)))))
    assert widths(done) == [[1, 4], [6, 1]]
    assert_same(done)


@pytest.mark.parametrize("how", ["shared", "output", "padded", "grouped", "gate", "softmax"])
def test_what_stays(how):
    net = Net()
    y = pruned(net, net.x, 8, 4, (3, 3), [1, 5])
    net.constants[net.nodes[-1].input[2]][[1, 5]] = 0.5
    z = net.op(
        "Softmax" if how == "softmax" else "Relu", y, **({"axis": 1} if how == "softmax" else {})
    )
    if how == "gate":
        z = net.op("Mul", z, net.op("Sigmoid", net.op("GlobalAveragePool", z)))
    w = net.conv(
        z,
        6,
        8,
        (3, 3),
        groups=2 if how == "grouped" else 1,
        **({} if how == "padded" else {"pads": NONE}),
    )
    if how == "shared":
        w = net.op("Add", net.op("GlobalAveragePool", w), net.conv(net.op("Tanh", z), 6, 8, (1, 1)))
    outputs = [z] if how == "output" else []
    done = rewrite(net.model(net.op("Relu", w), *outputs))
    assert_untouched(done)
    assert ("BORDER-BIAS" in done.codes) == (how == "padded")
