"""Reading ONNX files and protos: what is read, and what is refused."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from flatfold.errors import InputError
from flatfold.frontend import from_proto, read_model
from tests.frontend.execution import random_feeds, run

WEIGHT = np.arange(600, dtype=np.float32).reshape(2, 300)


def proto(
    text: str = "g (float[1, 2] x) => (float[1, 300] y) { y = MatMul (x, w) }",
) -> onnx.ModelProto:
    model = onnx.parser.parse_model('<ir_version: 10, opset_import: ["" : 20]>' + text)
    model.graph.initializer.append(numpy_helper.from_array(WEIGHT, "w"))
    return model


def external(**entries: str) -> onnx.ModelProto:
    """A model that refers to a file for its weight."""
    model = proto()
    weight = model.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        weight.external_data.add(key=key, value=value)
    return model


def write(folder: Path, model: onnx.ModelProto) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def refused(path: Path, cause: str) -> InputError:
    with pytest.raises(InputError, match=cause) as raised:
        read_model(path)
    assert type(raised.value) is InputError and "\n" not in raised.value.cause
    assert raised.value.where
    return raised.value


def assert_product(found: NDArray[np.generic], x: NDArray[np.generic]) -> None:
    """x WEIGHT, where each side may round both of its two products and their sum."""
    bound = 2 * 2 * 2.0**-24 * (np.abs(x) @ np.abs(WEIGHT))
    assert np.all(np.abs(found - x @ WEIGHT) <= bound)


def test_file_is_read(tmp_path: Path) -> None:
    model = read_model(write(tmp_path, proto()))
    feeds = random_feeds(model)
    assert_product(run(model, feeds)[0], feeds["x"])


def test_external_data_is_read_from_a_subfolder(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "w.bin").write_bytes(b"\0" * 64 + WEIGHT.tobytes() + b"rest")
    path = write(tmp_path, external(location="weights/w.bin", offset="64", length="2400"))
    weight = read_model(path).graph.initializers["w"].const_value
    (tmp_path / "weights" / "w.bin").unlink()
    assert weight is not None
    np.testing.assert_array_equal(weight.numpy(), WEIGHT)


def test_external_data_of_a_constant_node_is_read(tmp_path: Path) -> None:
    model = proto("g (float[1, 2] x) => (float[1, 300] y) { k = Constant () y = MatMul (x, k) }")
    del model.graph.initializer[:]
    (tmp_path / "w.bin").write_bytes(WEIGHT.tobytes())
    tensor = external(location="w.bin").graph.initializer[0]
    model.graph.node[0].attribute.append(onnx.helper.make_attribute("value", tensor))
    model = read_model(write(tmp_path, model))
    feeds = random_feeds(model)
    assert_product(run(model, feeds)[0], feeds["x"])


@pytest.mark.parametrize(
    ("entries", "cause"),
    [
        ({"location": "../w.bin"}, "inside the model's folder"),
        ({"location": "sub/../../w.bin"}, "inside the model's folder"),
        ({"location": "/etc/hostname"}, "inside the model's folder"),
        ({"location": "C:\\w.bin"}, "inside the model's folder"),
        ({"location": ""}, "inside the model's folder"),
        ({}, "inside the model's folder"),
        ({"location": "absent.bin"}, "No such file"),
        ({"location": "w.bin/more"}, "Not a directory"),
        ({"location": "folder"}, "not a regular file"),
        ({"location": "w.bin", "offset": "-4"}, "offset '-4'"),
        ({"location": "w.bin", "offset": "four"}, "offset 'four'"),
        ({"location": "w.bin", "offset": "8"}, "ends at byte 2408 of a file of 2400 bytes"),
        ({"location": "w.bin", "length": "2396"}, "2396 bytes, its shape and type call for 2400"),
        ({"location": "w.bin", "length": "9" * 30}, "its shape and type call for 2400"),
    ],
)
def test_external_data_that_is_refused(tmp_path: Path, entries: dict[str, str], cause: str) -> None:
    inside = tmp_path / "inside"
    (inside / "folder").mkdir(parents=True)
    (tmp_path / "w.bin").write_bytes(WEIGHT.tobytes())
    (inside / "w.bin").write_bytes(WEIGHT.tobytes())
    assert "weight 'w'" in refused(write(inside, external(**entries)), cause).cause


def symlink_to_file(outside: Path, inside: Path) -> None:
    (inside / "w.bin").symlink_to(outside / "w.bin")


def symlink_to_folder(outside: Path, inside: Path) -> None:
    (inside / "link").symlink_to(outside, target_is_directory=True)


def hard_link(outside: Path, inside: Path) -> None:
    (inside / "w.bin").hardlink_to(outside / "w.bin")


def fifo(outside: Path, inside: Path) -> None:
    os.mkfifo(inside / "w.bin")


@pytest.mark.parametrize(
    ("place", "location", "cause"),
    [
        (symlink_to_file, "w.bin", "through a symbolic link"),
        (symlink_to_folder, "link/w.bin", "through a symbolic link"),
        (hard_link, "w.bin", "a hard link"),
        (fifo, "w.bin", "not a regular file"),
    ],
)
def test_links_and_devices_are_refused(
    tmp_path: Path, place: Callable[[Path, Path], None], location: str, cause: str
) -> None:
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    outside.mkdir()
    inside.mkdir()
    (outside / "w.bin").write_bytes(WEIGHT.tobytes())
    place(outside, inside)
    start = time.monotonic()
    refused(write(inside, external(location=location)), cause)
    assert time.monotonic() - start < 5


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (b"", "found an empty file"),
        (b"this is no model\n" * 20, "do not parse"),
        (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "do not parse"),
        (proto().SerializeToString()[:-100], "do not parse"),
        (b"\x08\x0a", "no graph"),
    ],
    ids=["empty", "text", "image", "truncated", "no graph"],
)
def test_file_that_is_no_model(tmp_path: Path, data: bytes, cause: str) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    refused(path, cause)


def test_path_that_is_no_file(tmp_path: Path) -> None:
    refused(tmp_path / "absent.onnx", "no such file")
    refused(tmp_path, "no regular file")
    os.mkfifo(tmp_path / "pipe.onnx")
    refused(tmp_path / "pipe.onnx", "no regular file")


def newer_opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 999


def no_opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 0


def newer_ir(model: onnx.ModelProto) -> None:
    model.ir_version = 99


def short_weight(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].raw_data = b"\0" * 2000


def untyped_weight(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].data_type = 99


def second_weight(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(numpy_helper.from_array(WEIGHT * 2, "w"))


def second_producer(model: onnx.ModelProto) -> None:
    model.graph.node.append(onnx.helper.make_node("Relu", ["x"], ["y"]))


def hidden_weight(model: onnx.ModelProto) -> None:
    model.graph.node.insert(0, onnx.helper.make_node("Relu", ["x"], ["w"]))


def unknown_operator(model: onnx.ModelProto) -> None:
    model.graph.node[0].op_type = "Nonsense"


def dangling_input(model: onnx.ModelProto) -> None:
    model.graph.node[0].input[0] = "nowhere"


@pytest.mark.parametrize(
    ("break_model", "cause"),
    [
        (newer_opset, "found 999"),
        (no_opset, "found 0"),
        (newer_ir, "found 99"),
        (short_weight, "2000 bytes, its shape and type call for 2400"),
        (untyped_weight, "no fixed-size element type"),
        (second_weight, "2 initializers are named 'w'"),
        (second_producer, "2 node outputs are named 'y'"),
        (hidden_weight, "name of an input or initializer: 'w'"),
        (unknown_operator, "not a valid ONNX model: .*Nonsense"),
        (dangling_input, "not a valid ONNX model: .*nowhere"),
    ],
)
def test_model_that_is_not_valid(
    tmp_path: Path, break_model: Callable[[onnx.ModelProto], None], cause: str
) -> None:
    model = proto()
    break_model(model)
    refused(write(tmp_path, model), cause)
    with pytest.raises(InputError, match=cause):
        from_proto(model)


def test_proto_is_copied() -> None:
    model = proto()
    before = model.SerializeToString(deterministic=True)
    read = from_proto(model)
    read.graph.initializers["w"].name = "renamed"
    assert model.SerializeToString(deterministic=True) == before
    model.graph.initializer[0].raw_data = b"\0" * 2400
    weight = read.graph.initializers["renamed"].const_value
    assert weight is not None
    np.testing.assert_array_equal(weight.numpy(), WEIGHT)


def test_proto_with_external_data_is_refused() -> None:
    with pytest.raises(InputError, match="found weight 'w' kept in a file"):
        from_proto(external(location="w.bin"))
