"""Sizes for open axes: one for each symbol, found by trying, or as asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

import flatfold
from flatfold.errors import InputError
from flatfold.proof import sizes_that_run
from flatfold.sources import resolve

RNG = np.random.default_rng(0)


def weight(name: str, *shape: int) -> onnx.TensorProto:
    return numpy_helper.from_array(RNG.standard_normal(shape).astype(np.float32) * 0.1, name)


def model(
    nodes: list[onnx.NodeProto],
    inputs: dict[str, list[Any]],
    output: list[Any],
    weights: list[onnx.TensorProto],
) -> onnx.ModelProto:
    ends = [
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, dims)
            for name, dims in each.items()
        ]
        for each in (inputs, {"y": output})
    ]
    graph = helper.make_graph(nodes, "net", *ends, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def sizes(proto: onnx.ModelProto, **asked: Any) -> list[dict[str, tuple[int, ...]]]:
    source = resolve(proto, **asked)
    return sizes_that_run(source.model, source.shapes)


def pyramid(factor: int = 8) -> onnx.ModelProto:
    """Down by `factor` and up again, then the sum: the map must be a multiple of it."""
    pool = {"kernel_shape": [factor] * 2, "strides": [factor] * 2}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1] * 4),
        helper.make_node("MaxPool", ["c"], ["p"], **pool),
        helper.make_node("Resize", ["p", "", "s"], ["u"], mode="nearest"),
        helper.make_node("Add", ["u", "c"], ["y"]),
    ]
    scales = numpy_helper.from_array(np.array([1, 1, factor, factor], np.float32), "s")
    dims = ["n", 3, "h", "w"]
    return model(nodes, {"x": dims}, ["n", 4, "h", "w"], [weight("w", 4, 3, 3, 3), scales])


def head(size: int) -> onnx.ModelProto:
    """A matrix behind Flatten, which fits maps of one size only."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], strides=[4, 4]),
        helper.make_node("Flatten", ["c"], ["f"]),
        helper.make_node("Gemm", ["f", "g"], ["y"]),
    ]
    count = 4 * (size // 4) ** 2
    weights = [weight("w", 4, 3, 4, 4), weight("g", count, 5)]
    return model(nodes, {"x": ["n", 3, "h", "w"]}, ["n", 5], weights)


def test_without_a_condition_they_are_odd_and_not_square() -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"])]
    net = model(nodes, {"x": ["n", 3, "h", "w"]}, ["n", 4, "p", "q"], [weight("w", 4, 3, 3, 3)])
    assert sizes(net) == [{"x": (2, 3, 64, 48)}, {"x": (1, 3, 65, 49)}]


@pytest.mark.parametrize("factor", [16, 32])
def test_a_multiple_is_found(factor: int) -> None:
    found = sizes(pyramid(factor))
    assert len({setting["x"][2:] for setting in found}) == 2
    assert {setting["x"][0] for setting in found} == {1, 2}
    assert all(n % factor == 0 for setting in found for n in setting["x"][2:])


@pytest.mark.parametrize(("rows", "columns"), [(2, 64), (3, 4), (5, 5), (64, 49)])
def test_sizes_that_are_fixed_on_each_axis_are_found(rows: int, columns: int) -> None:
    """As many rows as a constant has, and as many columns as a matrix takes."""
    nodes = [
        helper.make_node("Concat", ["x", "r"], ["b"], axis=3),
        helper.make_node("MatMul", ["b", "m"], ["y"]),
    ]
    weights = [weight("r", 1, 3, rows, columns), weight("m", 2 * columns, 5)]
    net = model(nodes, {"x": ["n", 3, "h", "w"]}, ["n", 3, "p", 5], weights)
    assert {setting["x"][1:] for setting in sizes(net)} == {(3, rows, columns)}


@pytest.mark.parametrize("columns", [4, 5])
def test_small_volumes_are_found(columns: int) -> None:
    nodes = [helper.make_node("MatMul", ["x", "m"], ["y"])]
    dims = ["n", 2, "d", "h", "w"]
    net = model(nodes, {"x": dims}, ["n", 2, "d", "h", 5], [weight("m", columns, 5)])
    assert {setting["x"][-1] for setting in sizes(net)} == {columns}


@pytest.mark.parametrize("batch", [3, 8])
def test_a_batch_that_a_constant_asks_for_is_found(batch: int) -> None:
    """Its last row is added to each, so that it has at least so many."""
    nodes = [
        helper.make_node("Gather", ["x", "last"], ["l"], axis=0),
        helper.make_node("Add", ["x", "l"], ["y"]),
    ]
    last = numpy_helper.from_array(np.array([batch - 1]), "last")
    net = model(nodes, {"x": ["n", 4]}, ["n", 4], [last])
    found = sizes(net)
    assert found
    assert all(setting["x"][0] >= batch for setting in found)


@pytest.mark.parametrize("size", [32, 72, 100, 148, 224])
def test_the_size_of_a_fixed_head_is_found(size: int) -> None:
    found = sizes(head(size))  # its first layer leaves up to three pixels out
    assert len(found) == 2
    assert all(n // 4 == size // 4 for setting in found for n in setting["x"][2:])
    assert flatfold.optimize(head(size), verify="sample").equivalence.passed


def test_the_length_that_positions_ask_for_is_found() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], strides=[4]),
        helper.make_node("Add", ["c", "positions"], ["y"]),
    ]
    weights = [weight("w", 6, 3, 4), weight("positions", 1, 6, 333)]
    found = sizes(model(nodes, {"x": ["n", 3, "time"]}, ["n", 6, 333], weights))
    assert len(found) == 2 and all(setting["x"][2] // 4 == 333 for setting in found)


def test_a_symbol_has_one_size_wherever_it_stands() -> None:
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[1, 0, 2]),
        helper.make_node("RNN", ["t", "W", "R", "", "", "h"], ["o", "y"], hidden_size=4),
    ]
    weights = [weight("W", 1, 4, 5), weight("R", 1, 4, 4)]
    inputs = {"x": ["batch", "time", 5], "h": [1, "batch", 4]}
    for setting in sizes(model(nodes, inputs, [1, "batch", 4], weights)):
        assert setting["x"][0] == setting["h"][1]


def test_open_channels_are_what_the_first_layer_counts() -> None:
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["t", "w"], ["y"], group=2),
    ]
    net = model(nodes, {"x": ["n", "h", "w", "c"]}, ["n", 6, "p", "q"], [weight("w", 6, 3, 3, 3)])
    assert [setting["x"][3] for setting in sizes(net)] == [6, 6]


def test_volumes_are_small() -> None:
    nodes = [helper.make_node("Relu", ["x"], ["y"])]
    net = model(nodes, {"x": ["n", 3, "d", "h", "w"]}, ["n", 3, "d", "h", "w"], [])
    assert all(np.prod(setting["x"]) < 3 * 64 * 64 for setting in sizes(net))


@pytest.mark.parametrize(
    "asked",
    [
        {"input_shape": (3, 96, 64)},
        {"input_shape": (2, 3, 96, 64)},
        {"input_shape": (..., 96, 64)},
        {"input_shape": {"x": (2, 3, 96, 64)}},
        {"example_inputs": np.zeros((2, 3, 96, 64), np.float32)},
        {"example_inputs": {"x": np.zeros((2, 3, 96, 64), np.float32)}},
    ],
)
def test_what_is_asked_for_is_used(asked: dict[str, Any]) -> None:
    found = sizes(pyramid(), **asked)
    assert {setting["x"][1:] for setting in found} == {(3, 96, 64)}
    result = flatfold.optimize(pyramid(), **asked)
    assert all("3x96x64" in label for label in result.equivalence.inputs)
    ort.InferenceSession(result.model.SerializeToString()).run(
        None, {"x": np.zeros((3, 3, 16, 8), np.float32)}
    )  # an open axis stays open


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"input_shape": (4, 32, 32)}, "fixed size of 3 on axis 1, not 4"),
        ({"input_shape": (32,)}, "has 4 axes, not 1"),
        ({"input_shape": {"z": (1, 3, 8, 8)}}, "no input 'z'"),
    ],
)
def test_what_does_not_fit_is_told(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        resolve(pyramid(), **asked)


def test_sizes_at_which_a_value_exceeds_the_memory_are_not_tried() -> None:
    """Three million images are added: of 64 x 48 pixels they would take 100 GB."""
    pads = numpy_helper.from_array(np.array([0, 0, 0, 0, 3_000_000, 0, 0, 0]), "p")
    net = model(
        [helper.make_node("Pad", ["x", "p"], ["y"])], {"x": ["n", 3, "h", "w"]}, ["m"], [pads]
    )
    net.graph.output[0].type.tensor_type.ClearField("shape")
    for setting in sizes(net):
        count, *others = setting["x"]
        assert (count + 3_000_000) * int(np.prod(others)) < 2**29


def test_a_transpose_of_axes_that_do_not_exist_is_left_to_the_runtime() -> None:
    nodes = [helper.make_node("Transpose", ["x"], ["y"], perm=[0, 3, 1, 9])]
    with pytest.raises(InputError):
        sizes(model(nodes, {"x": ["n", 3, "h", "w"]}, ["n", "a", "b", "c"], []))


def test_where_nothing_runs_the_runtime_says_why() -> None:
    row = numpy_helper.from_array(np.array([10**9]), "row")
    nodes = [helper.make_node("Gather", ["x", "row"], ["y"], axis=1)]
    with pytest.raises(InputError, match=r"sizes tried: ONNX Runtime .*Gather"):
        sizes(model(nodes, {"x": ["n", "time"]}, ["n", 1], [row]))


def test_both_graphs_are_compared_at_the_sizes_that_one_of_them_fixes() -> None:
    net = pyramid()
    fixed = onnx.ModelProto()
    fixed.CopyFrom(net)
    dims = fixed.graph.input[0].type.tensor_type.shape.dim
    for dim, size in zip(dims, (1, 3, 24, 40), strict=True):
        dim.dim_value = size
    found = flatfold.verify(net, fixed)
    assert found.passed and all("1x3x24x40" in label for label in found.inputs)
