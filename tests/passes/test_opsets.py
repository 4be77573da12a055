"""Graphs written by hand, in every version of the operators from 14 to the newest.

Version 13 is in test_exported_blocks.py, on ONNX Runtime: the reference evaluator takes a
BatchNormalization of that version for one in training mode.
"""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from tests.nets import Net, assert_same, assert_untouched, rewrite

OPSETS = range(14, onnx.defs.onnx_opset_version() + 1)


def repvgg(net: Net) -> str:
    large = net.bn(net.conv(net.x, 4, 4, (3, 3), bias=False), 4)
    return net.op("Sum", large, net.conv(net.x, 4, 4, (1, 1)), net.bn(net.x, 4))


def partial(net: Net) -> str:
    """The first half of the channels has a shortcut; Slice, Add, Concat."""
    y = net.bn(net.conv(net.x, 4, 4, (3, 3), bias=False), 4)
    halves = [
        net.op("Slice", v, *(net.const(np.array([n])) for n in ends))
        for v, ends in ((y, (0, 2, 1)), (net.x, (0, 2, 1)), (y, (2, 4, 1)))
    ]
    return net.op("Concat", net.op("Add", *halves[:2]), halves[2], axis=1)


def shuffled(net: Net) -> str:
    y = net.conv(net.x, 4, 4, (3, 3), groups=2)
    y = net.op("Reshape", y, net.const(np.array([2, 2, 2, 9, 8])))
    y = net.op("Transpose", y, perm=[0, 2, 1, 3, 4])
    y = net.op("Reshape", y, net.const(np.array([2, 4, 9, 8])))
    return net.conv(y, 4, 4, (1, 1))


def pooled(net: Net) -> str:
    y = net.op("AveragePool", net.x, kernel_shape=[2, 2], strides=[2, 2], pads=[0, 0, 1, 0])
    return net.bn(net.conv(y, 6, 4, (1, 1), bias=False), 6)


def collapsed(net: Net) -> str:
    y = net.op("LeakyRelu", net.conv(net.x, 6, 4, (1, 1)), alpha=1.0)
    y = net.op("PRelu", y, net.const(np.ones((6, 1, 1))))
    return net.conv(y, 4, 6, (3, 3), pads=[0] * 4)


def transposed(net: Net) -> str:
    weight = net.const(net.rng.standard_normal((4, 3, 2, 2)))
    return net.bn(net.op("ConvTranspose", net.x, weight, strides=[2, 2], group=2), 6)


ONE = {"Conv": 1, "Relu": 1}
BLOCKS = {
    repvgg: ONE,
    partial: ONE,
    shuffled: ONE,
    collapsed: ONE,
    transposed: {"ConvTranspose": 1, "Relu": 1},
}


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("block", BLOCKS)
def test_a_block_is_one_layer_in_every_opset(block, opset):
    net = Net(opset=opset)
    done = rewrite(net.model(net.op("Relu", block(net))))
    assert done.graph.opset_imports[""] == opset
    assert done.ops == BLOCKS[block]
    assert_same(done)


@pytest.mark.parametrize("opset", OPSETS)
def test_an_average_of_what_is_padded_is_left(opset):
    """The pixels outside do not count by default, so it is not a convolution."""
    net = Net(opset=opset)
    done = rewrite(net.model(net.op("Relu", pooled(net))))
    assert done.ops == {"AveragePool": 1, "Conv": 1, "Relu": 1}
    assert_same(done)


def test_operators_with_other_rules_are_left():
    """In opset 6 an Add says by an attribute along which axis it broadcasts."""
    net = Net(opset=6)
    done = rewrite(net.model(net.bn(net.conv(net.x, 4, 4, (3, 3)), 4)))
    assert_untouched(done)
    assert [(remark.code, remark.node) for remark in done.remarks] == [("OLD-OPSET", "net")]
