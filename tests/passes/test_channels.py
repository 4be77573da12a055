"""Slice, Split, Gather, Concat and shuffles of channels beside layers."""

from __future__ import annotations

import numpy as np
import pytest

from tests.nets import Net, assert_same, assert_untouched, rewrite

NONE = [0, 0, 0, 0]


def sliced(net: Net, x: str, start: int, end: int, axis: int = 1) -> str:
    return net.op("Slice", x, *(net.const(np.array([n])) for n in (start, end, axis)))


def gathered(net: Net, x: str, index: list[int]) -> str:
    return net.op("Gather", x, net.const(np.array(index)), axis=1)


def shuffled(net: Net, x: str, groups: int, channels: int, batch: int = 2) -> str:
    h, w = net.shape[2:]
    there = net.const(np.array([batch, groups, channels // groups, h, w]))
    back = net.const(np.array([batch, channels, h, w]))
    turned = net.op("Transpose", net.op("Reshape", x, there), perm=[0, 2, 1, 3, 4])
    return net.op("Reshape", turned, back)


def relu(net: Net, x: str):
    return rewrite(net.model(net.op("Relu", x)))


@pytest.mark.parametrize("batch", [2, "n"])
@pytest.mark.parametrize("groups", [1, 2])
def test_parallel_convs_that_are_concatenated_become_one(groups, batch):
    net = Net((batch, 4, 9, 8))
    arms = [net.bn(net.conv(net.x, 6, 4, (k, k), groups=groups), 6) for k in (3, 1, 3)]
    done = relu(net, net.op("Concat", *arms, axis=1))
    assert done.ops == {"Conv": 1, "Relu": 1}
    assert_same(done, (2, 4, 9, 8))


@pytest.mark.parametrize("rank", [3, 4, 5])
def test_a_gather_of_channels_before_and_after_a_conv_goes_into_its_weights(rank):
    axes = rank - 2
    net = Net((2, 4, 9, 8, 7)[:rank])
    y = net.conv(gathered(net, net.x, [3, 1, 0, 2]), 6, 4, (3,) * axes)
    done = relu(net, gathered(net, y, [5, 0, 2, 1, 4, 3]))
    assert done.ops == {"Conv": 1, "Relu": 1}
    assert_same(done)


def test_repeated_channels_add_up():
    net = Net()
    done = relu(net, net.conv(gathered(net, net.x, [1, 1, 2, 3, 0, 1]), 6, 6, (3, 3)))
    assert done.ops == {"Conv": 1, "Relu": 1}
    assert_same(done)


@pytest.mark.parametrize("batch", [2, "n"])
@pytest.mark.parametrize("before", [True, False])
def test_a_channel_shuffle_goes_into_the_dense_conv_beside_it(before, batch):
    net = Net((batch, 4, 9, 8))
    first = 2 if batch == 2 else -1
    if before:
        y = net.conv(shuffled(net, net.x, 2, 4, first), 6, 4, (3, 3))
    else:
        y = shuffled(net, net.conv(net.x, 6, 4, (3, 3)), 3, 6, first)
    done = relu(net, y)
    assert done.ops == {"Conv": 1, "Relu": 1}
    assert_same(done, (2, 4, 9, 8))


def test_a_shuffle_between_grouped_convs_stays():
    net = Net((1, 64, 14, 14))
    y = net.conv(net.x, 64, 64, (3, 3), groups=8)
    done = relu(net, net.conv(shuffled(net, y, 8, 64, 1), 64, 64, (3, 3), groups=8))
    assert_untouched(done)


def test_a_shuffle_and_its_inverse_vanish():
    net = Net((2, 6, 9, 8))
    y = net.op("Tanh", net.x)
    done = relu(net, shuffled(net, shuffled(net, y, 2, 6), 3, 6))
    assert done.ops == {"Tanh": 1, "Relu": 1}
    assert_same(done)


def test_a_shuffle_alone_stays_as_it_is_written():
    net = Net((2, 6, 9, 8))
    assert_untouched(relu(net, shuffled(net, net.x, 2, 6)))


@pytest.mark.parametrize("dtype", [np.float64, np.float16])
def test_partial_identity_by_slices_becomes_a_sum(dtype):
    net = Net((2, 6, 9, 8), dtype=dtype)
    y = net.bn(net.conv(net.x, 6, 6, (3, 3), groups=6, bias=False), 6)
    part = net.op("Add", sliced(net, y, 0, 2), sliced(net, net.x, 0, 2))
    done = relu(net, net.op("Concat", part, sliced(net, y, 2, 6), axis=1))
    assert done.ops == {"Conv": 1, "Relu": 1}  # the identity is a tap of the depthwise kernel
    if dtype is np.float64:
        assert_same(done)


def test_partial_identity_of_another_value_becomes_a_masked_sum():
    net = Net((2, 6, 9, 8))
    x = net.op("Sigmoid", net.x)
    y = net.bn(net.conv(net.op("Tanh", x), 6, 6, (3, 3), groups=6, bias=False), 6)
    part = net.op("Add", sliced(net, y, 0, 2), sliced(net, x, 0, 2))
    done = relu(net, net.op("Concat", part, sliced(net, y, 2, 6), axis=1))
    assert done.ops == {"Conv": 1, "Relu": 1, "Tanh": 1, "Sigmoid": 1, "Mul": 1, "Add": 1}
    assert_same(done)


def test_partial_identity_by_a_mask_goes_into_the_kernel():
    net = Net((2, 6, 9, 8))
    mask = net.const(np.array([1.0, 1, 0, 0, 0, 0]).reshape(1, 6, 1, 1))
    y = net.bn(net.conv(net.x, 6, 6, (3, 3), groups=6, bias=False), 6)
    done = relu(net, net.op("Add", y, net.op("Mul", net.x, mask)))
    assert done.ops == {"Conv": 1, "Relu": 1}
    assert_same(done)


def test_convs_on_the_halves_of_a_value_become_one_with_groups():
    net = Net((2, 8, 9, 8))
    arms = [net.conv(sliced(net, net.x, 4 * i, 4 * i + 4), 6, 4, (3, 3)) for i in range(2)]
    done = relu(net, net.op("Concat", *arms, axis=1))
    assert done.ops == {"Conv": 1, "Relu": 1}
    assert_same(done)


@pytest.mark.parametrize("batch", [2, "n"])
def test_convs_on_a_split_become_one_with_groups(batch):
    net = Net((batch, 8, 9, 8))
    first = net.op("Split", net.x, outputs=2, axis=1, num_outputs=2)
    arms = [net.conv(x, 6, 4, (3, 3)) for x in (first, f"{first}_1")]
    done = relu(net, net.op("Concat", *arms, axis=1))
    assert done.ops == {"Conv": 1, "Relu": 1}
    assert_same(done, (2, 8, 9, 8))


@pytest.mark.parametrize("shared", [True, False])
def test_a_split_that_nothing_comes_of_is_left_as_it_was(shared):
    net = Net((2, 8, 9, 8))
    y = net.bn(net.conv(net.x, 8, 8, (3, 3)), 8) if shared else net.x
    first = net.op("Split", y, net.const(np.array([3, 5])), outputs=2, axis=1)
    arm = net.op("Sigmoid", first)
    done = rewrite(net.model(arm, f"{first}_1"))
    assert done.ops["Split"] == 1
    assert "Slice" not in done.ops
    assert_same(done)
    assert_untouched(rewrite(done.after))


def test_only_the_part_of_a_split_that_is_read_is_computed():
    net = Net((2, 4, 9, 8))
    first = net.op("Split", net.conv(net.x, 8, 4, (3, 3)), outputs=2, axis=1, num_outputs=2)
    done = relu(net, f"{first}_1")
    assert done.ops == {"Conv": 1, "Relu": 1}
    assert [w.shape[0] for w in done.graph.graph.initializers.values()] == [4, 4]
    assert_same(done)


def test_depthwise_on_one_part_and_nothing_on_the_other():
    """The ghost channels of Shift-ConvNets: the untouched ones are a kernel of one tap."""
    net = Net((1, 32, 9, 8))
    part = net.conv(gathered(net, net.x, [*range(0, 32, 2)]), 16, 16, (3, 3), groups=16)
    y = net.op("Concat", part, gathered(net, net.x, [*range(1, 32, 2)]), axis=1)
    done = relu(net, net.conv(net.bn(y, 32), 48, 32, (1, 1)))
    assert "BatchNormalization" not in done.ops
    assert_same(done)


def test_a_norm_behind_a_concat_goes_into_what_is_in_front_of_it():
    net = Net((2, 4, 9, 8))
    a = net.conv(net.op("Relu", net.x), 17, 4, (3, 3))
    b = net.conv(net.op("Sigmoid", net.x), 23, 4, (1, 1))
    done = relu(net, net.bn(net.op("Concat", a, b, axis=1), 40))
    assert done.ops == {"Conv": 2, "Concat": 1, "Relu": 2, "Sigmoid": 1}
    assert_same(done)


def test_values_that_differ_are_put_side_by_side_as_before():
    net = Net((2, 4, 9, 8))
    a, b = net.op("Relu", net.x), net.op("Sigmoid", net.x)
    assert_untouched(relu(net, net.op("Concat", a, b, a, axis=1)))


@pytest.mark.parametrize("axis", [2, 3])
@pytest.mark.parametrize("by", [1, 4])
def test_a_roll_wraps_and_is_never_a_shift(axis, by):
    net = Net((2, 4, 9, 8))
    size = net.shape[axis]
    ends = sliced(net, net.x, size - by, size, axis), sliced(net, net.x, 0, size - by, axis)
    done = relu(
        net, net.op("Add", net.op("Concat", *ends, axis=axis), net.conv(net.x, 4, 4, (3, 3)))
    )
    assert_same(done)


def test_a_roll_and_back_is_nothing():
    net = Net((1, 4, 9, 8))
    there = net.op("Concat", sliced(net, net.x, 7, 9, 2), sliced(net, net.x, 0, 7, 2), axis=2)
    y = net.op("Relu", there)
    back = net.op("Concat", sliced(net, y, 2, 9, 2), sliced(net, y, 0, 2, 2), axis=2)
    done = relu(net, back)
    assert_same(done)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_halves_that_are_swapped_twice(dtype):
    net = Net((1, 6, 5, 4), dtype=dtype)
    y = net.op("Tanh", net.x)
    for _ in range(2):
        y = net.op("Concat", sliced(net, y, 3, 6), sliced(net, y, 0, 3), axis=1)
    done = relu(net, y)
    if dtype is np.float64:
        assert_same(done)
    assert done.ops == {"Tanh": 1, "Relu": 1}


@pytest.mark.parametrize(("outputs", "ops"), [(64, {"Concat": 1, "Conv": 1}), (32, {"Conv": 4})])
def test_a_concat_is_taken_apart_where_each_further_node_is_sure_to_pay(outputs, ops):
    """By the estimates 4 % for 64 outputs and 16 % for 32, for five more nodes."""
    net = Net((1, 64, 32, 32))
    parts = [net.op(kind, net.x) for kind in ("Sigmoid", "Tanh", "Sin", "Erf")]
    y = net.conv(net.op("Concat", *parts, axis=1), outputs, 256, (1, 1))
    done = rewrite(net.model(net.op("Relu", y)))
    assert {kind: done.ops[kind] for kind in ops} == ops
    assert ("COST" in done.codes) == ("Concat" in ops)
    assert_same(done)


@pytest.mark.parametrize("behind", ["Relu", "BatchNormalization"])
@pytest.mark.parametrize(("outputs", "ops"), [(64, {"Concat": 1, "Conv": 1}), (32, {"Conv": 2})])
def test_a_concat_stays_where_only_its_copy_would_be_saved(outputs, ops, behind):
    """By the estimates 11 % for 64 outputs and 20 % for 32; a norm behind folds either way."""
    net = Net((1, 64, 32, 32))
    y = net.op("Concat", net.op("Sigmoid", net.x), net.op("Tanh", net.x), axis=1)
    y = net.conv(y, outputs, 128, (1, 1))
    y = net.bn(y, outputs) if behind == "BatchNormalization" else y
    done = rewrite(net.model(net.op("Relu", y)))
    assert {kind: done.ops[kind] for kind in ops} == ops
    assert ("Concat" in done.ops) == ("Concat" in ops) and "BatchNormalization" not in done.ops
    assert ("COST" in done.codes) == ("Concat" in ops)
    assert_same(done)


@pytest.mark.parametrize(("target", "costs_more"), [("ort-cpu", True), ("openvino", False)])
def test_channels_that_fill_registers_side_by_side_stay_so(target, costs_more):
    """24 and 24 are filled up to 32 and 32, and 48 to 48, where a layer fills what it reads."""
    net = Net((1, 24, 32, 32))
    y = net.op("Concat", net.op("Sigmoid", net.x), net.op("Tanh", net.x), axis=1)
    done = rewrite(net.model(net.op("Relu", net.conv(y, 16, 48, (3, 3)))), target=target)
    reasons = " ".join(remark.reason for remark in done.remarks)
    assert ("composing would cost 1.2x the time" in reasons) == costs_more
    assert ("composing would cost" in reasons) == costs_more
