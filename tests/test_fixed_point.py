"""A second `optimize` finds nothing left to do."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest

import flatfold
from tests.nets import Net


def operators(model: onnx.ModelProto) -> Counter:
    return Counter(node.op_type for node in model.graph.node)


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("repvgg_a0", "swnet_tiny")]


@pytest.mark.parametrize("name", ["unireplknet_a", "vanillanet_5", *SLOW])
def test_of_a_network_of_the_zoo(name: str) -> None:
    model = flatfold.create_model(name)
    once = flatfold.optimize(model, input_shape=(3, 64, 64), verify="off")
    twice = flatfold.optimize(once.model, verify="off")
    assert operators(twice.model) == operators(once.model)
    assert not [remark for remark in twice.remarks if remark.applied]


def test_what_two_rewrites_write_twice_is_there_once() -> None:
    """Both layers of a map with channels last read it through a Transpose of their own."""
    net = Net((1, 4, 9, 8), dtype=np.float32)
    y = net.op("MaxPool", net.x, kernel_shape=[2, 2])
    blocks = []
    for outputs in (6, 20):
        layer = net.op("Transpose", net.conv(y, outputs, 4, (1, 1)), perm=[0, 2, 3, 1])
        scale, shift = (net.const(net.rng.standard_normal(outputs)) for _ in range(2))
        blocks.append(net.op("Relu", net.op("Add", net.op("Mul", layer, scale), shift)))
    once = flatfold.optimize(net.model(*blocks))
    twice = flatfold.optimize(once.model)
    assert once.model.graph.node == twice.model.graph.node
    assert [i.name for i in once.model.graph.initializer] == [
        i.name for i in twice.model.graph.initializer
    ]
