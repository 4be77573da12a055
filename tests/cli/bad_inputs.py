"""Files that cannot be used as a model, each for a different reason."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

IMAGE = [1, 4, 9, 9]
Spoil = Callable[[onnx.ModelProto], object]


def good(size: int = 9) -> onnx.ModelProto:
    """Two parallel convolutions and a Relu."""
    rng = np.random.default_rng(0)
    image = [1, 4, size, size]
    nodes = [
        helper.make_node("Conv", ["x", "w3"], ["a"], name="wide", pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["x", "w1"], ["b"], name="narrow"),
        helper.make_node("Add", ["a", "b"], ["c"], name="both"),
        helper.make_node("Relu", ["c"], ["y"], name="last"),
    ]
    weights = {"w3": (4, 4, 3, 3), "w1": (4, 4, 1, 1)}
    graph = helper.make_graph(
        nodes,
        "block",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, image)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, image)],
        [
            numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name)
            for name, shape in weights.items()
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def raw(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


def spoiled(spoil: Spoil) -> Callable[[Path], object]:
    def write(path: Path) -> None:
        proto = good()
        spoil(proto)
        path.write_bytes(proto.SerializeToString())

    return write


def dims(index: int, size: int) -> Spoil:
    def spoil(proto: onnx.ModelProto) -> None:
        for value in (proto.graph.input[0], proto.graph.output[0]):
            value.type.tensor_type.shape.dim[index].dim_value = size

    return spoil


def append(op: str, inputs: list[str], **attributes: object) -> Spoil:
    """An operator between the Relu and the output."""

    def spoil(proto: onnx.ModelProto) -> None:
        proto.graph.node[3].output[0] = "d"
        proto.graph.node.append(helper.make_node(op, inputs, ["y"], **attributes))

    return spoil


def constant(name: str, array: object, then: Spoil | None = None) -> Spoil:
    def spoil(proto: onnx.ModelProto) -> None:
        proto.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
        if then is not None:
            then(proto)

    return spoil


def cyclic(proto: onnx.ModelProto) -> None:
    proto.graph.node[0].input[0] = "c"


def nested(levels: int) -> bytes:
    """An If in an If in an If ..."""
    inner = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["z"])],
        "leaf",
        [],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, IMAGE)],
    ).SerializeToString()
    for level in range(levels):
        node = helper.make_node("If", ["yes"], ["z"]).SerializeToString()
        for branch in ("then_branch", "else_branch"):
            head = helper.make_attribute(branch, 0)
            head.ClearField("i")
            head.type = onnx.AttributeProto.GRAPH
            body = head.SerializeToString()
            if branch == "then_branch":
                body += _field(6, inner)
            else:
                leaf = helper.make_graph([], "e", [], [])
                body += _field(6, leaf.SerializeToString())
            node += _field(5, body)
        outside = helper.make_graph([], f"g{level}", [], [])
        outside.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, IMAGE))
        inner = outside.SerializeToString() + _field(1, node)
    head = helper.make_model(helper.make_graph([], "g", [], []))
    head.ClearField("graph")
    return bytes(head.SerializeToString()) + _field(7, inner)


def _field(number: int, content: bytes) -> bytes:
    """A length-delimited field of protobuf, which `helper` cannot nest as deeply."""
    length, rest = [], len(content)
    while rest > 127:
        length.append(rest & 127 | 128)
        rest >>= 7
    return bytes([number << 3 | 2, *length, rest]) + content


def raw_weight(proto: onnx.ModelProto) -> None:
    proto.graph.initializer[0].raw_data = proto.graph.initializer[0].raw_data[:-4]


def string_weight(proto: onnx.ModelProto) -> None:
    proto.graph.initializer[0].CopyFrom(
        helper.make_tensor("w3", TensorProto.STRING, [4], [b"a", b"b", b"c", b"d"])
    )


def no_graph_output(proto: onnx.ModelProto) -> None:
    del proto.graph.output[:]


def wrong_type(proto: onnx.ModelProto) -> None:
    proto.graph.input[0].type.tensor_type.elem_type = TensorProto.INT64


def pipe(path: Path) -> None:
    os.mkfifo(path)


def loop(path: Path) -> None:
    path.symlink_to(path.name)


def sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 2**41)


def torch_file(path: Path) -> None:
    import torch

    torch.save({"w": torch.zeros(3)}, path)


FILES: dict[str, Callable[[Path], object]] = {
    "zero bytes": raw(b""),
    "text": raw(b"this is no model\n" * 20),
    "an image": raw(b"\x89PNG\r\n\x1a\n" + bytes(range(256))),
    "random bytes": raw(np.random.default_rng(0).bytes(5000)),
    "half a model": raw(good().SerializeToString()[:400]),
    "all but the last byte": raw(good().SerializeToString()[:-1]),
    "a checkpoint of torch": torch_file,
    "a folder": Path.mkdir,
    "nothing": lambda path: None,
    "a pipe": pipe,
    "a link to itself": loop,
    "a link to a device": lambda path: path.symlink_to("/dev/zero"),
    "two tebibytes of zeros": sparse,
    "a file that is no folder": lambda path: path.write_text("x"),
    "If nested 25 times": raw(nested(25)),
    "If nested 5000 times": raw(nested(5000)),
}

MODELS: dict[str, Spoil] = {
    "no graph": lambda p: p.ClearField("graph"),
    "an empty graph": lambda p: p.graph.Clear(),
    "no nodes": lambda p: p.graph.ClearField("node"),
    "no outputs": no_graph_output,
    "no opset": lambda p: p.ClearField("opset_import"),
    "two opsets": lambda p: p.opset_import.append(helper.make_opsetid("", 11)),
    "opset 999": lambda p: setattr(p.opset_import[0], "version", 999),
    "opset -3": lambda p: setattr(p.opset_import[0], "version", -3),
    "IR version 99": lambda p: setattr(p, "ir_version", 99),
    "no IR version": lambda p: p.ClearField("ir_version"),
    "an unknown operator": lambda p: setattr(p.graph.node[3], "op_type", "Nonsense"),
    "an unknown domain": lambda p: setattr(p.graph.node[3], "domain", "nobody.knows"),
    "a cycle": cyclic,
    "a value that nobody makes": lambda p: p.graph.node[2].input.__setitem__(0, "nowhere"),
    "a missing weight": lambda p: p.graph.initializer.pop(),
    "two weights of one name": lambda p: p.graph.initializer.append(p.graph.initializer[0]),
    "two nodes that make one value": lambda p: p.graph.node.append(p.graph.node[0]),
    "two inputs of one name": lambda p: p.graph.input.append(p.graph.input[0]),
    "two attributes of one name": lambda p: p.graph.node[0].attribute.append(
        p.graph.node[0].attribute[0]
    ),
    "an attribute of another type": lambda p: p.graph.node[0].attribute[0].__setattr__("type", 1),
    "pads of the wrong number": lambda p: p.graph.node[0].attribute[0].ints.append(1),
    "huge pads": lambda p: p.graph.node[0].attribute[0].ints.__setitem__(0, 2**40),
    "negative strides": lambda p: p.graph.node[0].attribute.append(
        helper.make_attribute("strides", [-1, -1])
    ),
    "a weight that is too short": raw_weight,
    "a weight of text": string_weight,
    "a weight of no type": lambda p: setattr(p.graph.initializer[0], "data_type", 0),
    "a weight of an unknown type": lambda p: setattr(p.graph.initializer[0], "data_type", 99),
    "a weight of negative size": lambda p: p.graph.initializer[0].dims.__setitem__(0, -4),
    "a weight of huge size": lambda p: p.graph.initializer[0].dims.__setitem__(0, 2**62),
    "a weight of another rank": lambda p: p.graph.initializer[0].dims.extend([1, 1]),
    "an input of huge size": dims(2, 2**40),
    "an input of large size": dims(2, 10**9),
    "an input of no size": dims(2, 0),
    "an input of other channels": dims(1, 5),
    "an input of whole numbers": wrong_type,
    "an input without a type": lambda p: p.graph.input[0].ClearField("type"),
    "a constant of huge size": constant(
        "s", np.array([2**31, 2**31], np.int64), append("ConstantOfShape", ["s"])
    ),
    "a constant of large size": constant(
        "s", np.array([2**18, 2**18], np.int64), append("ConstantOfShape", ["s"])
    ),
    "a reshape to nowhere": constant(
        "s", np.array([7, -1, -1], np.int64), append("Reshape", ["d", "s"])
    ),
    "a shape that is not a number": constant(
        "s", np.array([np.nan], np.float32), append("Reshape", ["d", "s"])
    ),
    "repeats without end": constant(
        "s", np.array([1, 1, 2**40, 1], np.int64), append("Tile", ["d", "s"])
    ),
    "a gather from beyond": constant("s", np.array([99], np.int64), append("Gather", ["d", "s"])),
    "an axis that is not there": append("Softmax", ["d"], axis=99),
    "a sequence": append("SequenceConstruct", ["d"]),
}
