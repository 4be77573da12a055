"""Graphs that a careless reader of operators gets wrong, or falls over."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx import helper

from flatfold.errors import NotEquivalent
from flatfold.passes import PIPELINE, Pipeline, collapse_activations
from tests.nets import Net, assert_same, assert_untouched, rewrite


def clip(net: Net, x: str, low: float, high: float) -> str:
    return net.op("Clip", x, net.const(np.array(low)), net.const(np.array(high)))


def test_clip_with_its_limits_crossed_gives_the_upper_one():
    net = Net()
    done = rewrite(net.model(net.op("Relu", clip(net, net.x, 0.0, -1.0))))
    assert_untouched(done)
    assert_same(done)


def test_limits_below_the_range_of_the_input():
    net = Net()
    y = net.op("Relu", clip(net, net.op("Relu", net.x), -5.0, -1.0))
    done = rewrite(net.model(y))
    assert done.ops == {"Relu": 2, "Clip": 1}
    assert_same(done)


def test_activations_that_follow_each_other_raise_no_false_alarm():
    net = Net()
    y = net.op("Relu", clip(net, net.op("Relu", net.x), -1.0, 6.0))
    done = rewrite(net.model(net.op("Exp", clip(net, y, 0.0, 6.0))))
    assert done.ops == {"Relu": 1, "Clip": 1, "Exp": 1}
    assert_same(done)


def test_the_check_goes_beyond_the_limits_of_a_clip(monkeypatch):
    """A wrong range would remove a Clip that unit normals never reach."""
    monkeypatch.setattr(collapse_activations, "value_bounds", lambda value: (-6.0, 6.0))
    net = Net()
    with pytest.raises(NotEquivalent):
        rewrite(net.model(net.op("Exp", clip(net, net.x, -6.0, 6.0))))


@pytest.mark.parametrize("opset", [9, 10, 11, 18])
def test_a_matrix_without_bias_is_valid_in_old_operator_sets(opset):
    net = Net((3, 4), opset=opset)
    y = net.op("MatMul", net.x, net.const(net.rng.standard_normal((4, 5))))
    done = rewrite(net.model(net.op("Mul", y, net.const(net.rng.standard_normal(5)))))
    assert done.ops == {"MatMul": 1}
    assert_same(done)


def test_an_empty_range_is_no_crop():
    net = Net()
    ends = [net.const(np.array([n])) for n in (5, 3, 2)]
    y = net.op("Mul", net.op("Slice", net.x, *ends), net.const(np.array(2.0)))
    done = rewrite(net.model(net.op("Relu", y)))
    assert_untouched(done)
    assert "SLICE" in done.codes


def test_negative_axes_of_a_pad():
    net = Net()
    pads, axes = net.const(np.array([1, 0, 2, 1])), net.const(np.array([-2, 3]))
    y = net.op("Pad", net.conv(net.x, 4, 4, (3, 3)), pads, "", axes)
    done = rewrite(net.model(net.conv(y, 4, 4, (1, 1), False)))
    assert_same(done)


def test_a_mask_that_is_an_output_keeps_its_dropout():
    net = Net(opset=10)
    net.op("Relu", net.op("Dropout", net.op("Tanh", net.x), outputs=2))
    graph = ir.from_proto(net.model("relu2"))
    dropout = graph.graph.node(1)
    graph.graph.outputs.append(dropout.outputs[1])
    Pipeline([kind() for kind in PIPELINE]).run(graph)
    assert dropout.graph is graph.graph


def test_metadata_of_others_is_not_believed():
    net = Net()
    model = net.model(net.bn(net.conv(net.x, 4, 4, (3, 3)), 4))
    for node, text in zip(model.graph.node, ["junk", '{"a": 1}'], strict=True):
        node.metadata_props.add(key="flatfold.replaced", value=text)
    done = rewrite(model)
    assert done.ops == {"Conv": 1}
    assert_same(done)


@pytest.mark.parametrize(
    "wrong", [{"pads": [1, 1]}, {"strides": [1]}, {"strides": [0, 1]}, {"auto_pad": "FOO"}]
)
def test_attributes_that_do_not_fit_are_declined(wrong):
    net = Net()
    net.conv(net.x, 4, 4, (3, 3))
    model = net.model(net.bn("conv0", 4))
    names = {"auto_pad": "", **wrong}
    for attribute in [a for a in model.graph.node[0].attribute if a.name in names]:
        model.graph.node[0].attribute.remove(attribute)
    model.graph.node[0].attribute.extend(helper.make_attribute(k, v) for k, v in wrong.items())
    graph = ir.from_proto(model)
    remarks = Pipeline([kind() for kind in PIPELINE]).run(graph)
    assert [node.op_type for node in graph.graph] == ["Conv", "BatchNormalization"]
    assert "ATTRIBUTE" in {remark.code for remark in remarks}


def test_half_open_sizes_keep_what_is_known():
    net = Net(("n", 4, "h", 15))
    ends = [net.const(np.array([n])) for n in (1, 14, 3)]
    y = net.conv(net.op("Slice", net.x, *ends), 4, 4, (3, 3), groups=4, pads=[0] * 4)
    done = rewrite(net.model(net.bn(y, 4)))
    assert done.ops == {"Conv": 1}
    assert_same(done, (1, 4, 6, 15))


def test_a_long_sum_over_different_values_is_one_visit():
    net = Net((1, 2, 3, 3))
    y = net.x
    for _ in range(300):
        y = net.op("Add", y, net.op("Tanh", net.x))
    done = rewrite(net.model(y))
    assert_untouched(done)
    assert sum(remark.code == "SOURCES" for remark in done.remarks) <= 1
