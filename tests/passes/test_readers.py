"""A map of the channels that several layers read goes into each of them, or into none."""

from __future__ import annotations

import numpy as np
import pytest

from tests.nets import Net, assert_same, assert_untouched, rewrite


def weight(net: Net, *shape: int) -> str:
    return net.const(net.rng.standard_normal(shape))


def product(net: Net, x: str, inputs: int, outputs: int) -> str:
    """A Linear layer with its bias."""
    return net.op("Add", net.op("MatMul", x, weight(net, inputs, outputs)), weight(net, outputs))


def test_two_convolutions_take_a_norm() -> None:
    net = Net((2, 4, 9, 7))
    y = net.bn(net.op("Sigmoid", net.x), 4)
    ends = [net.op("Relu", net.conv(y, o, 4, (1, 1), strides=[s, s])) for o, s in ((6, 1), (3, 2))]
    done = rewrite(net.model(*ends))
    assert done.ops == {"Sigmoid": 1, "Conv": 2, "Relu": 2}
    assert_same(done)


def test_the_norm_before_query_key_and_value() -> None:
    """Next-ViT: behind a Reshape and a Transpose, and pooled for two of the three."""
    net = Net((2, 4, 3, 6))
    y = net.bn(net.op("Sigmoid", net.x), 4)
    rows = net.op("Reshape", y, net.const(np.array([0, 4, 18])))
    pooled = net.op("AveragePool", rows, kernel_shape=[3], strides=[3])
    keys = net.op("Transpose", pooled, perm=[0, 2, 1])
    query = net.op("Transpose", rows, perm=[0, 2, 1])
    ends = [product(net, x, 4, 5) for x in (query, keys, keys)]
    done = rewrite(net.model(*(net.op("Relu", end) for end in ends)))
    assert "BatchNormalization" not in done.ops
    assert_same(done)


def test_a_scale_goes_in_front_of_padding_too() -> None:
    net = Net((2, 4, 9, 7))
    y = net.op("Mul", net.op("Sigmoid", net.x), weight(net, 4, 1, 1))
    ends = [net.op("Relu", net.conv(y, 5, 4, (k, k))) for k in (3, 1)]
    done = rewrite(net.model(*ends))
    assert done.ops == {"Sigmoid": 1, "Conv": 2, "Relu": 2}
    assert_same(done)


def padded(net: Net, y: str) -> str:
    return net.conv(y, 5, 4, (3, 3))


def activation(net: Net, y: str) -> str:
    return net.op("Exp", y)


def mixing(net: Net, y: str) -> str:
    """A view that mixes channels and pixels."""
    rows = net.op("Reshape", y, net.const(np.array([2, 9, 28])))
    return net.op("Conv", rows, weight(net, 5, 9, 1))


def right_operand(net: Net, y: str) -> str:
    return net.op("MatMul", weight(net, 3, 9), y)


@pytest.mark.parametrize("other", [padded, activation, mixing, right_operand])
def test_one_reader_that_cannot_take_it_leaves_it_where_it_is(other) -> None:
    net = Net((2, 4, 9, 7))
    y = net.bn(net.op("Sigmoid", net.x), 4)
    ends = [net.op("Relu", net.conv(y, 5, 4, (1, 1))), net.op("Tanh", other(net, y))]
    done = rewrite(net.model(*ends))
    assert_untouched(done)
    assert "SHARED" in done.codes


def test_an_output_of_the_graph_stays() -> None:
    net = Net((2, 4, 9, 7))
    y = net.bn(net.op("Sigmoid", net.x), 4)
    ends = [net.op("Relu", net.conv(y, 5, 4, (1, 1))) for _ in range(2)]
    assert_untouched(rewrite(net.model(*ends, y)))


def test_a_reader_in_a_body_leaves_it_where_it_is() -> None:
    from onnx import TensorProto, helper

    net = Net((2, 4, 9, 7))
    y = net.bn(net.op("Sigmoid", net.x), 4)
    ends = [net.op("Relu", net.conv(y, 5, 4, (1, 1))) for _ in range(2)]
    body = helper.make_graph(
        [helper.make_node("Exp", [y], ["inside"])],
        "body",
        [],
        [helper.make_tensor_value_info("inside", TensorProto.DOUBLE, None)],
    )
    positive = net.op("Greater", net.op("ReduceMax", net.x, keepdims=0), net.const(0.0))
    ends.append(net.op("If", positive, then_branch=body, else_branch=body))
    done = rewrite(net.model(*ends))
    assert done.ops["BatchNormalization"] == 1
    assert_same(done)


def test_more_biases_than_the_norm_is_worth_are_not_written() -> None:
    """Six products without a bias would each get one for a scale and a shift."""
    net = Net((2, 32, 4))
    y = net.op("Add", net.op("Sigmoid", net.x), weight(net, 4))
    ends = [net.op("Relu", net.op("MatMul", y, weight(net, 4, 8))) for _ in range(6)]
    assert_untouched(rewrite(net.model(*ends)))
