"""A training-form block in the bodies of If and Loop, and in a function of the model."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper

import flatfold
from tests.nets import Net

SHAPE = (2, 4, 9, 8)
FLOAT, INT64, BOOL = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64, onnx.TensorProto.BOOL
DEPLOYED = {"Conv": 1, "Relu": 1}


def block(net: Net, x: str) -> str:
    """RepVGG: 3x3 + 1x1 + identity."""
    large = net.bn(net.conv(x, 4, 4, (3, 3), bias=False), 4)
    small = net.bn(net.conv(x, 4, 4, (1, 1), bias=False), 4)
    return net.op("Relu", net.op("Sum", large, small, net.bn(x, 4)))


def image(name: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, FLOAT, SHAPE)


def constants(net: Net, prefix: str = "") -> list[onnx.TensorProto]:
    return [numpy_helper.from_array(array, prefix + n) for n, array in net.constants.items()]


def model(graph: onnx.GraphProto, *functions: onnx.FunctionProto) -> onnx.ModelProto:
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
    proto = helper.make_model(graph, functions=functions, opset_imports=opsets)
    proto.ir_version = 8
    onnx.checker.check_model(proto)
    return proto


def branch(name: str, seed: int) -> onnx.GraphProto:
    """A body that reads `x` of the graph around it."""
    net = Net(SHAPE, dtype=np.float32, seed=seed)
    y = block(net, "x")
    for node in net.nodes:
        node.name = name + node.name
        node.input[:] = [n if n == "x" else name + n for n in node.input]
        node.output[:] = [name + n for n in node.output]
    return helper.make_graph(net.nodes, name, [], [image(name + y)], constants(net, name))


def choice() -> onnx.ModelProto:
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], keepdims=0),
        helper.make_node("Greater", ["mean", "zero"], ["bright"]),
        helper.make_node(
            "If", ["bright"], ["y"], then_branch=branch("a", 0), else_branch=branch("b", 1)
        ),
    ]
    zero = numpy_helper.from_array(np.float32(0), "zero")
    return model(helper.make_graph(nodes, "net", [image("x")], [image("y")], [zero]))


def repetition() -> onnx.ModelProto:
    net = Net(SHAPE, dtype=np.float32)
    y = block(net, "state")
    nodes = [*net.nodes, helper.make_node("Identity", ["go"], ["on"])]
    step = helper.make_tensor_value_info("step", INT64, [])
    go, on = (helper.make_tensor_value_info(name, BOOL, []) for name in ("go", "on"))
    body = helper.make_graph(
        nodes, "body", [step, go, image("state")], [on, image(y)], constants(net)
    )
    loop = helper.make_node("Loop", ["times", "", "x"], ["y"], body=body)
    times = numpy_helper.from_array(np.int64(3), "times")
    return model(helper.make_graph([loop], "net", [image("x")], [image("y")], [times]))


def twice() -> onnx.ModelProto:
    """Two calls of one function, with weights of their own."""
    nets = [Net(SHAPE, dtype=np.float32, seed=seed) for seed in (0, 1)]
    outputs = [block(net, "in") for net in nets]
    own = helper.make_function(
        "own",
        "Block",
        ["in", *nets[0].constants],
        [outputs[0]],
        nets[0].nodes,
        [helper.make_opsetid("", 18)],
    )
    calls, weights, x = [], [], "x"
    for i, net in enumerate(nets):
        weights += constants(net, f"{i}.")
        arguments = [x, *(f"{i}.{name}" for name in net.constants)]
        x = f"y{i}"
        calls.append(helper.make_node("Block", arguments, [x], domain="own"))
    return model(helper.make_graph(calls, "net", [image("x")], [image(x)], weights), own)


def operators(graph: ir.Graph) -> dict[str, int]:
    return Counter(node.op_type for node in graph if node.op_type != "Identity")


@pytest.mark.parametrize("make", [choice, repetition])
def test_bodies_are_optimized_inside(make):
    proto = make()
    done = flatfold.optimize(proto)
    _, *bodies = done.graph.graphs()
    assert bodies
    assert all(operators(body) == DEPLOYED for body in bodies)
    assert done.equivalence.verdict == "certified"
    x = np.random.default_rng(0).standard_normal(SHAPE, dtype=np.float32)
    for sign in (1, -1):  # either branch is taken
        wanted = flatfold.compile(proto, target="ort-cpu", passes=[])(abs(x) * sign)
        found = flatfold.compile(done.model, target="ort-cpu", passes=[])(abs(x) * sign)
        bound = 3 * 2.0**-24 * 36 * np.abs(wanted).max()  # 36 products, at most three times
        np.testing.assert_allclose(found, wanted, rtol=0, atol=bound)


def test_a_condition_from_outside_is_drawn_too():
    proto = choice()
    proto.graph.input.append(helper.make_tensor_value_info("bright", BOOL, []))
    del proto.graph.node[:2]
    assert flatfold.optimize(proto).equivalence.verdict == "certified"


def test_functions_are_inlined_and_optimized():
    done = flatfold.optimize(twice())
    assert not done.graph.functions
    assert operators(done.graph.graph) == {"Conv": 2, "Relu": 2}
    assert done.equivalence.verdict == "certified"
