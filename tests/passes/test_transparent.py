"""Maps of the channels move past means, views and transposes, and meet what is behind them."""

from __future__ import annotations

import numpy as np
import pytest

from tests.nets import Net, assert_same, assert_untouched, rewrite


def head(net: Net, y: str, kind: str, channels: int = 4) -> str:
    """[N, C, H, W] to [N, C], as the exporters and people write it."""
    if kind == "pool and flatten":
        return net.op("Flatten", net.op("GlobalAveragePool", y))
    if kind == "pool and reshape":
        target = net.const(np.array([-1, channels]))
        return net.op("Reshape", net.op("GlobalAveragePool", y), target)
    if kind == "pool and squeeze":
        return net.op("Squeeze", net.op("GlobalAveragePool", y), net.const(np.array([2, 3])))
    keep = int(kind == "mean kept")
    mean = net.op("ReduceMean", y, net.const(np.array([2, 3])), keepdims=keep)
    return net.op("Flatten", mean) if keep else mean


KINDS = ("pool and flatten", "pool and reshape", "pool and squeeze", "mean kept", "mean")


@pytest.mark.parametrize("batch", [2, "n"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_norm_goes_through_the_mean_into_the_linear_layer(kind, batch):
    net = Net((batch, 4, 9, 8))
    y = head(net, net.bn(net.op("Sigmoid", net.x), 4), kind)
    weight, bias = net.const(net.rng.standard_normal((3, 4))), net.const(net.rng.standard_normal(3))
    done = rewrite(net.model(net.op("Gemm", y, weight, bias, transB=1)))
    assert "BatchNormalization" not in done.ops
    assert not {"Mul", "Add"} & {*done.ops}
    assert_same(done, (2, 4, 9, 8))


@pytest.mark.parametrize("sizes", [(9, 8), ("h", "w")])
def test_a_pointwise_convolution_is_done_behind_the_mean(sizes):
    net = Net(("n", 4, *sizes))
    y = net.op("GlobalAveragePool", net.conv(net.op("Tanh", net.x), 6, 4, (1, 1)))
    done = rewrite(net.model(net.op("Relu", y)))
    assert [node.op_type for node in done.graph.graph] == [
        "Tanh",
        "GlobalAveragePool",
        "Conv",
        "Relu",
    ]
    assert_same(done, (2, 4, 9, 8))


def test_a_padded_convolution_does_not_go_through_a_mean():
    net = Net()
    y = net.op("GlobalAveragePool", net.conv(net.op("Tanh", net.x), 6, 4, (3, 3)))
    assert_untouched(rewrite(net.model(net.op("Relu", y))))


def test_a_norm_in_front_of_flatten_scales_every_pixel_of_its_channel():
    net = Net((2, 3, 4, 5))
    y = net.op("Flatten", net.bn(net.op("Relu", net.x), 3))
    weight = net.const(net.rng.standard_normal((7, 60)))
    done = rewrite(net.model(net.op("Gemm", y, weight, net.const(np.ones(7)), transB=1)))
    assert done.ops == {"Relu": 1, "Flatten": 1, "Gemm": 1}
    assert_same(done)


def to_last(net: Net, x: str) -> str:
    return net.op("Transpose", x, perm=[0, 2, 3, 1])


def to_first(net: Net, x: str) -> str:
    return net.op("Transpose", x, perm=[0, 3, 1, 2])


@pytest.mark.parametrize("batch", [2, "n"])
def test_a_linear_layer_between_two_transposes_is_a_pointwise_convolution(batch):
    net = Net((batch, 4, 9, 8))
    product = net.op("MatMul", to_last(net, net.x), net.const(net.rng.standard_normal((4, 6))))
    y = to_first(net, net.op("Add", product, net.const(net.rng.standard_normal(6))))
    done = rewrite(net.model(net.op("Relu", net.bn(y, 6))))
    assert done.ops == {"Conv": 1, "Relu": 1}
    assert_same(done, (2, 4, 9, 8))


def test_it_merges_with_the_branch_beside_it():
    net = Net()
    product = net.op("MatMul", to_last(net, net.x), net.const(net.rng.standard_normal((4, 4))))
    total = net.op("Add", net.conv(net.x, 4, 4, (3, 3)), to_first(net, product))
    done = rewrite(net.model(net.op("Relu", total)))
    assert done.ops == {"Conv": 1, "Relu": 1}
    assert_same(done)


def test_a_norm_in_front_of_a_transpose_goes_into_the_linear_layer():
    net = Net()
    y = to_last(net, net.bn(net.op("Tanh", net.x), 4))
    y = net.op("MatMul", y, net.const(net.rng.standard_normal((4, 6))))
    y = net.op("Add", y, net.const(net.rng.standard_normal(6)))
    done = rewrite(net.model(net.op("Relu", y)))
    assert done.ops == {"Tanh": 1, "Transpose": 1, "MatMul": 1, "Add": 1, "Relu": 1}
    assert_same(done)


def test_transposes_that_undo_each_other_vanish():
    net = Net()
    y = to_first(net, to_last(net, net.op("Tanh", net.x)))
    done = rewrite(net.model(net.op("Relu", y)))
    assert done.ops == {"Tanh": 1, "Relu": 1}
    assert_same(done)


def test_a_nonlinear_arm_between_transposes_keeps_them():
    net = Net()
    y = net.op("Sigmoid", to_last(net, net.x))
    assert_untouched(rewrite(net.model(to_first(net, y))))


@pytest.mark.parametrize("biased", [True, False])
def test_the_scale_and_bias_of_a_layer_norm_go_into_the_linear_layer(biased):
    net = Net((2, 9, 8, 4))
    parts = [net.const(net.rng.standard_normal(4)) for _ in range(1 + biased)]
    y = net.op("LayerNormalization", net.x, *parts, axis=-1)
    y = net.op("MatMul", y, net.const(net.rng.standard_normal((4, 6))))
    y = net.op("Add", y, net.const(net.rng.standard_normal(6)))
    done = rewrite(net.model(net.op("Relu", y)))
    if not biased:  # nothing is saved: the operator must have a scale
        return assert_untouched(done)
    assert done.ops == {"LayerNormalization": 1, "MatMul": 1, "Add": 1, "Relu": 1}
    (norm,) = [n for n in done.graph.graph if n.op_type == "LayerNormalization"]
    assert len(norm.inputs) == 2
    assert_same(done)


def test_a_layer_norm_with_nothing_behind_it_is_left_without_a_remark():
    net = Net((2, 9, 8, 4))
    parts = [net.const(net.rng.standard_normal(4)) for _ in range(2)]
    done = rewrite(net.model(net.op("Relu", net.op("LayerNormalization", net.x, *parts))))
    assert_untouched(done)
    assert not done.codes


@pytest.mark.parametrize("slope", [0.25, 0.5, 1.0])
def test_a_schedule_on_its_way_is_one_leaky_relu(slope):
    """(1 - l) * relu(x) + l * x."""
    net = Net()
    y = net.op("Tanh", net.x)
    bend = net.op("Mul", net.const(np.array(1 - slope)), net.op("Relu", y))
    line = net.op("Mul", y, net.const(np.array(slope)))
    z = net.op("Add", bend, line)
    done = rewrite(net.model(net.op("Sigmoid", z)))
    expected = {"Tanh": 1, "LeakyRelu": 1, "Sigmoid": 1}
    assert done.ops == (expected if slope < 1 else {"Tanh": 1, "Sigmoid": 1})
    assert_same(done)


def test_a_slope_that_single_precision_cannot_hold_is_left_in_a_double_graph():
    net = Net()
    y = net.op("Tanh", net.x)
    bend = net.op("Mul", net.const(np.array(0.7)), net.op("Relu", y))
    done = rewrite(net.model(net.op("Add", bend, net.op("Mul", y, net.const(np.array(0.3))))))
    assert done.ops["Relu"] == 1


def test_slopes_that_differ_by_channel_are_left():
    net = Net()
    y = net.op("Tanh", net.x)
    slopes = net.const(net.rng.uniform(size=(4, 1, 1)))
    done = rewrite(net.model(net.op("Add", net.op("Relu", y), net.op("Mul", y, slopes))))
    assert done.ops["Relu"] == 1


def test_an_axis_put_in_front_of_one_channel_is_not_taken_for_one_behind_it():
    """[N, 50] by a product to [N, 1], then to [N, 1, 1]: which 1 is the channel is in the axes."""
    for axis in (1, 2):
        net = Net((1, 50))
        weight = net.const(net.rng.standard_normal((50, 1)))
        y = net.op("Unsqueeze", net.op("MatMul", net.x, weight), net.const(np.array([axis])))
        assert_same(rewrite(net.model(net.bn(y, 1))), net.shape)


def test_a_map_of_one_pixel_turned_to_and_fro_beside_itself():
    """What a deferred Transpose reads stays in the graph, though the sum is looked through it."""
    net = Net((1, 3, 4, 6), opset=9)
    y = net.op("Div", net.op("GlobalAveragePool", net.x), net.const(np.array(0.7)))
    turned = net.op("Transpose", y, perm=[0, 3, 1, 2])
    back = net.op("Transpose", turned, perm=[0, 2, 3, 1])
    moved = net.op("Add", back, net.const(np.array([-1.1])))
    again = net.op("Transpose", moved, perm=[0, 3, 1, 2])
    assert_same(rewrite(net.model(net.op("Add", turned, again))), net.shape)


def test_a_slice_that_is_the_whole_of_one_pixel_raises_no_alarm():
    """[0:1] of an axis of one pixel, whose source declares none: the check draws its own."""
    net = Net((2, 2, "h", 6), opset=18)
    x = net.op("AveragePool", net.x, kernel_shape=[2, 6], strides=[3, 1])
    first = net.op("Split", x, outputs=2, num_outputs=2, axis=1)
    y = net.conv(first, 4, 1, (1, 1))
    ranges = ([0, 1], [1, 2**62], [3, 1], [1, 2])
    cut = net.op("Slice", y, *(net.const(np.array(numbers)) for numbers in ranges))
    model = net.model(net.op("Concat", cut, f"{first}_1", axis=1))
    for value in model.graph.value_info:
        if value.name != y:
            for dim in value.type.tensor_type.shape.dim[2:]:
                dim.Clear()
    assert_same(rewrite(model), (2, 2, 8, 6))
