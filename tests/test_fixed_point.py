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


def test_two_views_around_a_norm_that_is_gone_are_none() -> None:
    """LeViT: the norm behind a linear layer works on rows, between two views."""
    net = Net((1, 5, 6), dtype=np.float32)
    weight = net.const(net.rng.standard_normal((6, 8)))
    rows = net.op("Flatten", net.op("MatMul", net.x, weight), axis=2)
    back = net.op("Reshape", net.bn(rows, 8), net.const(np.array([1, 5, 8])))
    once = flatfold.optimize(net.model(net.op("Relu", back)))
    assert operators(once.model) == {"MatMul": 1, "Add": 1, "Relu": 1}
    assert once.equivalence.verdict == "certified"
    twice = flatfold.optimize(once.model)
    assert not [remark for remark in twice.remarks if remark.applied]


def test_views_that_do_not_lead_back_are_one() -> None:
    net = Net((1, 5, 6), dtype=np.float32)
    weight = net.const(net.rng.standard_normal((6, 8)))
    rows = net.op("Flatten", net.op("MatMul", net.x, weight), axis=2)
    heads = net.op("Reshape", net.bn(rows, 8), net.const(np.array([1, 5, 2, 4])))
    once = flatfold.optimize(net.model(net.op("Relu", heads)))
    assert operators(once.model) == {"MatMul": 1, "Add": 1, "Reshape": 1, "Relu": 1}
