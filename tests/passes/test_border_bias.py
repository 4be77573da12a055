"""Padding by what a normalization makes of zero (DBB), in each way that it is written."""

from __future__ import annotations

import numpy as np
import pytest

from tests.nets import Net, assert_same, assert_untouched, rewrite

NONE = [0, 0, 0, 0]
LAST = 2**31 - 1


def normed(net: Net, y: str, channels: int) -> tuple[str, np.ndarray]:
    """A norm, and what it makes of zero."""
    name = net.bn(y, channels)
    parts = [net.constants[n] for n in net.nodes[-1].input[1:]]
    gamma, beta, mean, variance = parts
    return name, beta - mean * gamma / np.sqrt(variance + np.float32(1e-5))


def written(net: Net, y: str, offset: np.ndarray, width: int, where="all", size=(9, 8)) -> str:
    """A map padded by zeros, its border written over, one side after the other."""
    pads = net.const(np.array([0, 0, width, width] * 2))
    y = net.op("Pad", y, pads)
    sizes = [n + 2 * width for n in size]
    for axis in (2, 3):
        shape = [2, len(offset), *sizes]
        shape[axis] = width
        strip = net.const(np.broadcast_to(offset.reshape(1, -1, 1, 1), shape).copy())
        for at_start in (True, False):
            if where != "all" and where != (axis, at_start):
                continue
            ends = (width, LAST) if at_start else (0, -width)
            rest = net.op("Slice", y, *(net.const(np.array([n])) for n in (*ends, axis)))
            pair = [strip, rest] if at_start else [rest, strip]
            y = net.op("Concat", *pair, axis=axis)
    return y


@pytest.mark.parametrize("strides", [[1, 1], [2, 2]])
@pytest.mark.parametrize("width", [1, 2])
def test_four_border_writes_between_two_convolutions(width, strides):
    net = Net()
    y, offset = normed(net, net.conv(net.x, 8, 4, (1, 1), bias=False), 8)
    y = written(net, y, offset, width)
    k = 2 * width + 1
    done = rewrite(net.model(net.op("Relu", net.conv(y, 4, 8, (k, k), pads=NONE, strides=strides))))
    assert done.ops == {"Conv": 1, "Relu": 1}
    assert_same(done)


def test_a_whole_diverse_branch_block_is_one_convolution():
    net = Net()
    dense = net.bn(net.conv(net.x, 6, 4, (3, 3), bias=False), 6)
    small = net.bn(net.conv(net.x, 6, 4, (1, 1), bias=False), 6)
    y, offset = normed(net, net.conv(net.x, 6, 4, (1, 1), bias=False), 6)
    mean = net.op("AveragePool", written(net, y, offset, 1), kernel_shape=[3, 3], strides=[1, 1])
    y, offset = normed(net, net.conv(net.x, 4, 4, (1, 1), bias=False), 4)
    chain = net.bn(net.conv(written(net, y, offset, 1), 6, 4, (3, 3), False, pads=NONE), 6)
    total = net.op("Sum", dense, small, net.bn(mean, 6), chain)
    done = rewrite(net.model(net.op("Relu", total)))
    assert done.ops == {"Conv": 1, "Relu": 1}
    assert_same(done)


def test_pad_between_minus_and_plus():
    net = Net()
    y, offset = normed(net, net.conv(net.x, 8, 4, (1, 1), bias=False), 8)
    column = offset.reshape(1, -1, 1, 1)
    y = net.op("Pad", net.op("Sub", y, net.const(column)), net.const(np.array([0, 0, 1, 1] * 2)))
    y = net.conv(net.op("Add", y, net.const(column)), 4, 8, (3, 3), pads=NONE)
    done = rewrite(net.model(net.op("Relu", y)))
    assert done.ops == {"Conv": 1, "Relu": 1}
    assert_same(done)


@pytest.mark.parametrize("shape", [(2, 4, 9, 8), (2, 4, "h", "w")])
@pytest.mark.parametrize(("mean", "std"), [(0.5, 0.25), (0.485, 0.229)])
@pytest.mark.parametrize("pads", [[0, 0, 1, 2, 0, 0, 3, 1], [0, 0, 0, 2, 0, 0, 0, 3]])
def test_a_pad_by_what_a_map_makes_of_zero(shape, mean, std, pads):
    """The second one makes another number of it in the last digit."""
    net = Net(shape)
    y = net.op("Sub", net.x, net.const(np.array(mean)))
    y = net.op("Mul", y, net.const(np.array(1 / std)))
    y = net.op("Pad", y, net.const(np.array(pads)), net.const(np.array(-mean / std)))
    done = rewrite(net.model(net.op("Relu", net.conv(y, 4, 4, (3, 3), pads=NONE))))
    assert done.ops == {"Conv": 1, "Relu": 1}
    for size in [(2, 4, 9, 8)] if "h" not in shape else [(2, 4, 9, 8), (1, 4, 4, 5)]:
        assert_same(done, size)


@pytest.mark.parametrize("number", [0.5, -2.01, 1e30, np.inf, np.nan])
def test_a_pad_by_another_number_stays(number):
    net = Net()
    y = net.op("Add", net.op("Mul", net.x, net.const(np.array(4.0))), net.const(np.array(-2.0)))
    y = net.op("Pad", y, net.const(np.array([0, 0, 1, 1] * 2)), net.const(np.array(number)))
    done = rewrite(net.model(net.op("Relu", net.conv(y, 4, 4, (3, 3), pads=NONE))))
    assert done.ops["Pad"] == 1
    assert done.codes & {"BORDER-BIAS", "PAD-MODE"}


def test_branches_padded_by_their_own_numbers_merge():
    """Each by what its map makes of zero: the sum is the same at the border as inside."""
    net = Net()
    padded = []
    for number in (0.25, -1.5):
        y = net.op("Add", net.x, net.const(np.array(number)))
        pads = net.const(np.array([0, 0, 1, 1] * 2))
        y = net.op("Pad", y, pads, net.const(np.array(number)))
        padded.append(net.conv(y, 4, 4, (3, 3), pads=NONE))
    done = rewrite(net.model(net.op("Relu", net.op("Add", *padded))))
    assert done.ops == {"Conv": 1, "Relu": 1}
    assert_same(done)


@pytest.mark.parametrize("where", [(2, True), (2, False), (3, True), (3, False)])
def test_one_side_alone_is_not_enough(where):
    net = Net()
    y, offset = normed(net, net.conv(net.x, 8, 4, (1, 1), bias=False), 8)
    y = written(net, y, offset, 1, where)
    done = rewrite(net.model(net.op("Relu", net.conv(y, 4, 8, (3, 3), pads=NONE))))
    assert "Concat" in done.ops
    assert_same(done)


def test_another_number_on_the_border_is_not_enough():
    net = Net()
    y, offset = normed(net, net.conv(net.x, 8, 4, (1, 1), bias=False), 8)
    y = written(net, y, offset + 0.1, 1)
    done = rewrite(net.model(net.op("Relu", net.conv(y, 4, 8, (3, 3), pads=NONE))))
    assert "Concat" in done.ops
    assert_same(done)


def test_a_border_that_is_live_is_not_written_over():
    """The map is not padded first, so writing destroys data."""
    net = Net()
    y, offset = normed(net, net.conv(net.x, 8, 4, (1, 1), bias=False), 8)
    strip = net.const(np.broadcast_to(offset.reshape(1, -1, 1, 1), (2, 8, 1, 8)).copy())
    rest = net.op("Slice", y, *(net.const(np.array([n])) for n in (1, LAST, 2)))
    y = net.op("Concat", strip, rest, axis=2)
    done = rewrite(net.model(net.op("Relu", net.conv(y, 4, 8, (3, 3), pads=NONE))))
    assert "Concat" in done.ops
    assert_same(done)


def test_a_norm_in_front_of_a_padded_convolution_stays_and_the_pad_does_not():
    net = Net()
    y = net.bn(net.op("Tanh", net.x), 4)
    y = net.op("Pad", y, net.const(np.array([0, 0, 1, 1] * 2)))
    done = rewrite(net.model(net.op("Relu", net.conv(y, 4, 4, (3, 3), pads=NONE))))
    assert done.ops == {"Tanh": 1, "BatchNormalization": 1, "Conv": 1, "Relu": 1}
    assert "BORDER-BIAS" in done.codes
    assert_same(done)


def test_constant_channels_beside_data_are_left():
    net = Net()
    zeros = net.const(np.zeros((2, 1, 9, 8)))
    y = net.op("Concat", net.conv(net.x, 4, 4, (3, 3)), zeros, axis=1)
    assert_untouched(rewrite(net.model(net.op("Relu", y))))


@pytest.mark.parametrize("by", [1, 3])
@pytest.mark.parametrize("axis", [2, 3])
def test_a_shift_written_into_zeros_joins_the_kernel_beside_it(axis, by):
    net = Net()
    shape = list(net.shape)
    shape[axis] = by
    rest = net.op("Slice", net.x, *(net.const(np.array([n])) for n in (0, -by, axis)))
    moved = net.op("Concat", net.const(np.zeros(shape)), rest, axis=axis)
    k = 2 * by + 1
    done = rewrite(net.model(net.op("Relu", net.op("Add", net.conv(net.x, 4, 4, (k, k)), moved))))
    assert done.ops == {"Conv": 1, "Relu": 1}
    assert_same(done)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("axis", [2, 3])
def test_zeros_put_beside_what_has_a_bias_have_none(axis, first):
    """A convolution padded by zeros would have its bias there."""
    net = Net()
    shape = list(net.shape)
    shape[axis] = 2
    parts = [net.const(np.zeros(shape)), net.bn(net.op("Tanh", net.x), 4)]
    y = net.op("Concat", *(parts if first else parts[::-1]), axis=axis)
    for tail in (y, net.conv(y, 4, 4, (3, 3), pads=NONE)):
        done = rewrite(net.model(net.op("Relu", tail)))
        assert done.ops["Concat"] == 1 and "BORDER-BIAS" in done.codes
        assert_same(done)
