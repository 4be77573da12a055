"""The driver: fixed point, order, subgraphs, names, linear time in the size of a region."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
from onnx import helper
from onnx.reference import ReferenceEvaluator

from flatfold.passes import PIPELINE, Pipeline
from flatfold.passes.fold_batchnorm import FoldBatchNorm
from tests.nets import Net, assert_same, rewrite
from tests.replay.results import digest


def block(net: Net, x: str) -> str:
    y = net.op("Add", net.bn(net.conv(x, 4, 4, (3, 3), False), 4), net.bn(x, 4))
    y = net.op("Add", y, net.bn(net.conv(x, 4, 4, (1, 1), False), 4))
    return net.op("Relu", y)


def weights(model: ir.Model) -> list[np.ndarray]:
    return [v.const_value.numpy() for v in model.graph.initializers.values()]


def work_for_every_pass(net: Net) -> str:
    """For each pass something that it can do alone: a norm, a shift, branches, a linear LeakyRelu,
    a kernel of zero rows and zero channels, a pool, a pair of layers, a scale behind a maximum, a
    HardSwish, a norm that is spelled out, a product and a bias between views."""
    y = net.bn(net.conv(net.x, 4, 4, (1, 1)), 4)
    x = net.op("GridSample", y, one_pixel_to_the_right(net), mode="nearest")
    square, point = net.conv(x, 6, 4, (3, 3), False), net.conv(x, 6, 4, (1, 1))
    y = net.op("LeakyRelu", net.op("Add", square, point), alpha=1.0)
    y = net.conv(y, 8, 6, (5, 5))
    weight = net.constants[net.nodes[-1].input[1]]
    weight[:, :, [0, -1]] = 0
    weight[[1, 5]] = 0
    y = net.op("Relu", net.op("MaxPool", y, kernel_shape=[2, 2], strides=[2, 2]))
    y = net.conv(net.conv(y, 8, 8, (3, 3), pads=[0, 0, 0, 0]), 4, 8, (1, 1))
    y = net.op("GlobalMaxPool", net.conv(y, 4, 4, (3, 3)))
    y = net.op("Mul", y, net.const(np.array([0.5, 2.0, 1.5, 3.0]).reshape(4, 1, 1)))
    three, zero, six = (net.const(np.array(number)) for number in (3.0, 0.0, 6.0))
    y = net.op("Div", net.op("Mul", y, net.op("Clip", net.op("Add", y, three), zero, six)), six)
    axes, epsilon = net.const(np.array([1])), net.const(np.array(1e-5))
    centred = net.op("Sub", y, net.op("ReduceMean", y, axes))
    square = net.op("ReduceMean", net.op("Mul", centred, centred), axes)
    y = net.op("Div", centred, net.op("Sqrt", net.op("Add", square, epsilon)))
    three_axes, two_axes = (net.const(np.array(sizes)) for sizes in ((1, 2, 4), (2, 4)))
    y = net.op("Reshape", net.op("Sigmoid", y), three_axes)
    y = net.op("MatMul", y, net.const(net.rng.standard_normal((4, 4))))
    return net.op("Reshape", net.op("Add", y, net.const(net.rng.standard_normal(4))), two_axes)


def one_pixel_to_the_right(net: Net) -> str:
    """The grid that gives each of two maps of 9 x 8 its right neighbours."""
    y, x = (2 * np.arange(size) + 1 for size in (9, 8))
    rows, columns = np.meshgrid(y / 9 - 1, (x + 2) / 8 - 1, indexing="ij")
    return net.const(np.stack([np.stack([columns, rows], -1)] * 2))


def test_the_order_of_the_passes_changes_nothing():
    net = Net(dtype=np.float32)
    model = net.model(work_for_every_pass(net))
    for kind in PIPELINE:
        remarks = Pipeline([kind()]).run(ir.from_proto(model))
        assert any(remark.applied for remark in remarks), f"{kind.name} has no work of its own here"
    first, last = ir.from_proto(model), ir.from_proto(model)
    Pipeline([kind() for kind in PIPELINE]).run(first)
    Pipeline([kind() for kind in reversed(PIPELINE)]).run(last)
    assert digest(first) == digest(last)  # of nodes, names and weights, to the last bit


def test_folding_first_and_merging_afterwards_agrees_to_rounding():
    net = Net(dtype=np.float32)
    model = net.model(block(net, net.x))
    at_once, in_steps = ir.from_proto(model), ir.from_proto(model)
    Pipeline([kind() for kind in PIPELINE]).run(at_once)
    Pipeline([FoldBatchNorm()]).run(in_steps)
    Pipeline([kind() for kind in PIPELINE]).run(in_steps)
    for a, b in zip(weights(at_once), weights(in_steps), strict=True):
        assert np.max(np.abs(a - b)) <= 4 * 2.0**-24 * np.max(np.abs(a))


def test_the_same_model_gives_the_same_bytes():
    def once() -> bytes:
        net = Net(dtype=np.float32)
        return rewrite(net.model(block(net, net.x))).after.SerializeToString()

    assert once() == once()


def test_the_bodies_of_if_are_rewritten_inside():
    net = Net()
    inner = Net(seed=1)
    y = inner.bn(inner.op("Conv", "x", inner.const(np.ones((4, 4, 1, 1)), "w")), 4)
    constants = [onnx.numpy_helper.from_array(a, n) for n, a in inner.constants.items()]
    out = [helper.make_tensor_value_info(y, 11, [2, 4, 9, 8])]
    then = helper.make_graph(inner.nodes, "then", [], out, constants)
    other = [helper.make_node("Identity", ["x"], ["same"])]
    same = [helper.make_tensor_value_info("same", 11, [2, 4, 9, 8])]
    both = {"then_branch": then, "else_branch": helper.make_graph(other, "else", [], same)}
    for choice in (True, False):
        net = Net()
        model = net.model(net.op("If", net.const(np.array(choice)), **both))
        done = rewrite(model)
        assert done.applied == ["fold-batchnorm"]
        assert_same(done)


def test_new_names_are_new_in_every_graph():
    net = Net()
    y = net.bn(net.conv(net.x, 4, 4, (3, 3)), 4)
    net.const(np.zeros(1), f"{y}.weight")
    net.const(np.zeros(1), f"{y}.bias_2")
    done = rewrite(net.model(net.op("Relu", net.op("Add", y, f"{y}.weight"))))
    assert done.ops == {"Conv": 1, "Relu": 1}
    names = list(done.graph.graph.initializers)
    assert len(names) == len(set(names))
    assert_same(done)


def test_a_region_of_thousands_of_nodes_is_no_recursion():
    net = Net((1, 2, 3, 3))
    y = net.x
    factor = net.const(np.array([1.001, 0.999]).reshape(2, 1, 1))
    for _ in range(3000):
        y = net.op("Mul", y, factor)
    done = rewrite(net.model(net.op("Relu", y)))
    assert done.ops == {"Mul": 1, "Relu": 1}


def test_unused_weights_are_dropped_and_inputs_kept():
    net = Net()
    model = net.model(block(net, net.x))
    done = rewrite(model)
    assert [v.name for v in done.graph.graph.inputs] == ["x"]
    assert len(done.graph.graph.initializers) == 2
    feeds = {"x": np.ones((2, 4, 9, 8))}
    assert ReferenceEvaluator(done.after).run(None, feeds)[0].shape == (2, 4, 9, 8)
