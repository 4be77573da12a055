"""Changes of nodes, of their inputs and of their attributes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx
from onnx import helper

from tests.mutants.draws import Rng, one, size, values

OPERATORS = [
    *("Conv", "ConvTranspose", "BatchNormalization", "Gemm", "MatMul", "Dropout", "Constant"),
    *("Add", "Sub", "Mul", "Div", "Sum", "Relu", "LeakyRelu", "Clip", "Softmax", "Identity"),
    *("AveragePool", "MaxPool", "ReduceMean", "Concat", "Slice", "Pad", "Split", "Gather"),
    *("Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Expand", "Where", "Cast"),
    *("Shape", "Nonsense"),
]


def _delete_node(proto: onnx.ModelProto, rng: Rng) -> None:
    if proto.graph.node:
        del proto.graph.node[int(rng.integers(len(proto.graph.node)))]


def _bypass_node(proto: onnx.ModelProto, rng: Rng) -> None:
    """Let the readers of a node read its first input instead."""
    node = one(proto.graph.node, rng) if proto.graph.node else None
    if node is None or not node.input or not node.output:
        return
    for reader in proto.graph.node:
        for index, name in enumerate(reader.input):
            if name == node.output[0] and reader is not node:
                reader.input[index] = node.input[0]


def _swap_nodes(proto: onnx.ModelProto, rng: Rng) -> None:
    if len(proto.graph.node) > 1:
        i, j = (int(n) for n in rng.integers(len(proto.graph.node), size=2))
        first, second = onnx.NodeProto(), onnx.NodeProto()
        first.CopyFrom(proto.graph.node[i])
        second.CopyFrom(proto.graph.node[j])
        proto.graph.node[i].CopyFrom(second)
        proto.graph.node[j].CopyFrom(first)


def _duplicate_node(proto: onnx.ModelProto, rng: Rng) -> None:
    """Insert a copy of a node, usually with new outputs, and let the next reader read it."""
    if not proto.graph.node:
        return
    at = int(rng.integers(len(proto.graph.node)))
    copy = onnx.NodeProto()
    copy.CopyFrom(proto.graph.node[at])
    if rng.random() < 0.8:
        copy.output[:] = [f"{name}.again" for name in copy.output]
    proto.graph.node.insert(at + 1, copy)
    for node in proto.graph.node[at + 2 :]:
        for index, name in enumerate(node.input):
            if copy.output and name == copy.output[0].removesuffix(".again"):
                node.input[index] = copy.output[0]
                return


def _change_operator(proto: onnx.ModelProto, rng: Rng) -> None:
    if proto.graph.node:
        one(proto.graph.node, rng).op_type = one(OPERATORS, rng)


def _rewire(proto: onnx.ModelProto, rng: Rng) -> None:
    nodes = [node for node in proto.graph.node if node.input]
    if nodes:
        node = one(nodes, rng)
        node.input[int(rng.integers(len(node.input)))] = one(values(proto), rng)


def _change_input_count(proto: onnx.ModelProto, rng: Rng) -> None:
    """Add or remove one input."""
    if proto.graph.node:
        node = one(proto.graph.node, rng)
        if rng.random() < 0.5 and node.input:
            node.input.pop()
        else:
            node.input.append(one(values(proto), rng))


def _change_attribute(proto: onnx.ModelProto, rng: Rng) -> None:
    attributes = [a for node in proto.graph.node for a in node.attribute]
    if not attributes:
        return
    attribute = one(attributes, rng)
    if attribute.ints and rng.random() < 0.8:
        attribute.ints[int(rng.integers(len(attribute.ints)))] = size(rng)
    elif attribute.ints:
        attribute.ints.append(size(rng)) if rng.random() < 0.5 else attribute.ints.pop()
    elif attribute.type == onnx.AttributeProto.FLOAT:
        attribute.f = one((0.0, -1.0, 1e30, float("nan"), float("inf"), 1e-30), rng)
    else:
        attribute.i = size(rng)


def _add_attribute(proto: onnx.ModelProto, rng: Rng) -> None:
    choices: dict[str, Any] = {
        "pads": [int(n) for n in rng.integers(-1, 3, size=4)],
        "strides": [int(n) for n in rng.integers(0, 4, size=2)],
        "dilations": [int(n) for n in rng.integers(0, 4, size=2)],
        "group": size(rng),
        "auto_pad": one(("SAME_UPPER", "SAME_LOWER", "VALID", "NOTSET", "WRONG"), rng),
        "axis": size(rng),
        "training_mode": int(rng.integers(3)),
        "count_include_pad": 1,
        "ceil_mode": 1,
        "mode": one(("reflect", "edge", "wrap", "constant"), rng),
        "alpha": float(rng.standard_normal()),
        "transA": 1,
    }
    name = one(sorted(choices), rng)
    if proto.graph.node:
        one(proto.graph.node, rng).attribute.append(helper.make_attribute(name, choices[name]))


NODES: list[Callable[[onnx.ModelProto, Rng], None]] = [
    _delete_node,
    _bypass_node,
    _swap_nodes,
    _duplicate_node,
    _change_operator,
    _rewire,
    _change_input_count,
    _change_attribute,
    _add_attribute,
]
