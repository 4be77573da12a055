"""The sizes that the table of operators says, compared with what ONNX Runtime computes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper

from flatfold.frontend.canonicalization.graph_shapes import evaluate_shapes
from tests.frontend.execution import run

AUTO = ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER")


def shapes_of(
    nodes: list[onnx.NodeProto],
    feeds: dict[str, Any],
    opset: int = 22,
    constants: dict[str, Any] | None = None,
    *,
    is_open: bool = False,
) -> Any:
    """The shape of `y` that is inferred, and the one that ONNX Runtime computes, if it runs.

    If `is_open`, every size of an input is a name: that of size 3 is "s3".
    """
    kinds = {name: helper.np_dtype_to_tensor_dtype(x.dtype) for name, x in feeds.items()}
    inputs = [
        helper.make_tensor_value_info(
            name, kinds[name], [f"s{size}" for size in x.shape] if is_open else x.shape
        )
        for name, x in feeds.items()
    ]
    tensors = [numpy_helper.from_array(x, name) for name, x in (constants or {}).items()]
    output = helper.make_empty_tensor_value_info("y")
    graph = helper.make_graph(nodes, "g", inputs, [output], tensors)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    model = ir.from_proto(helper.make_model(graph, opset_imports=opsets, ir_version=10))
    evaluate_shapes(model.graph, dict(model.opset_imports))
    (y,) = model.graph.outputs
    inferred = None if y.shape is None else tuple(ir_size(size) for size in y.shape)
    try:
        (result,) = run(model, feeds)
    except Exception:
        return inferred, None
    return inferred, result.shape


def ir_size(size: Any) -> Any:
    return size if isinstance(size, int) else size.value


def settings(operator: str) -> Iterator[dict[str, Any]]:
    """Windows along one axis."""
    grid = itertools.product((1, 2, 3, 5), (1, 2, 3), (1, 2), (0, 1))
    for kernel, stride, dilation, ceil in grid:
        window = {"kernel_shape": [kernel], "strides": [stride], "dilations": [dilation]}
        if operator.startswith("Conv"):
            if ceil:
                continue
        else:
            window["ceil_mode"] = ceil  # type: ignore[assignment]
        for pads in ([0, 0], [1, 0], [0, 1], [1, 1], [2, 2]):
            if max(pads) < kernel:
                yield {**window, "pads": pads}
        for auto in ("VALID", "SAME_UPPER", "SAME_LOWER"):
            yield {**window, "auto_pad": auto}


@pytest.mark.parametrize("operator", ["MaxPool", "AveragePool", "LpPool", "Conv", "ConvTranspose"])
def test_windows_leave_what_onnx_runtime_computes(operator: str) -> None:
    ran = 0
    for window in settings(operator):
        weight = np.ones((2, 2, window["kernel_shape"][0]), np.float32)
        for size in (1, 6):
            feeds = {"x": np.ones((1, 2, size), np.float32)}
            if operator.startswith("Conv"):
                feeds["w"] = weight
            node = helper.make_node(operator, list(feeds), ["y"], **window)
            inferred, computed = shapes_of([node], feeds)
            assert computed is None or inferred == computed, (size, window)
            ran += computed is not None
    assert ran > 120


def i64(*numbers: int) -> Any:
    return np.array(numbers, dtype=np.int64)


def f32(*numbers: float) -> Any:
    return np.array(numbers, dtype=np.float32)


X, MAP = (2, 4, 6, 5), (1, 2, 4, 4)

# operator, shapes of data inputs, constant inputs, attributes, opset
OPERATORS: list[tuple[str, list[tuple[int, ...]], list[Any], dict[str, Any], int]] = [
    ("Add", [X, (6, 1)], [], {}, 17),
    ("Where", [], [np.ones((3, 1), bool), np.ones((1, 4), np.float32), f32(1)], {}, 17),
    ("Transpose", [X], [], {}, 17),
    ("Transpose", [X], [], {"perm": [2, 0, 3, 1]}, 17),
    ("Flatten", [X], [], {"axis": -1}, 17),
    ("Flatten", [X], [], {"axis": 0}, 17),
    ("Reshape", [X], [i64(0, -1, 15)], {}, 17),
    ("Squeeze", [(2, 1, 3, 1)], [], {}, 17),
    ("Squeeze", [(2, 1, 3, 1)], [i64(-1)], {}, 17),
    ("Squeeze", [(2, 1, 3, 1)], [], {"axes": [1]}, 11),
    ("Unsqueeze", [X], [i64(0, -1)], {}, 17),
    ("Unsqueeze", [X], [], {"axes": [1, 3]}, 11),
    ("Expand", [(3, 1)], [i64(2, 1, 4)], {}, 17),
    ("Tile", [X], [i64(1, 2, 1, 3)], {}, 17),
    ("Concat", [X, (2, 1, 6, 5)], [], {"axis": -3}, 17),
    ("Split", [X], [], {"axis": 1}, 17),
    ("Pad", [X], [i64(0, 0, 1, -2, 0, 0, 3, 0)], {}, 17),
    ("Pad", [X], [i64(1, 2), f32(0).reshape(()), i64(-1)], {}, 18),
    ("Pad", [X], [], {"pads": [0, 0, 1, 2, 0, 0, 3, 4]}, 9),
    ("Slice", [X], [i64(-1, 1), i64(-100, 100), i64(2, -1), i64(-2, 2)], {}, 17),
    ("Slice", [X], [], {"starts": [1, -2], "ends": [3, 9], "axes": [1, 3]}, 9),
    ("DepthToSpace", [(1, 8, 3, 2)], [], {"blocksize": 2}, 17),
    ("SpaceToDepth", [(1, 2, 6, 4)], [], {"blocksize": 2}, 17),
    ("Resize", [X], [f32(), f32(1, 1, 2.5, 0.7)], {}, 17),
    ("Resize", [X], [f32(), f32(1, 1, 1.1, 1.9)], {"mode": "linear"}, 17),
    ("Resize", [X], [f32(), f32(), i64(2, 4, 3, 9)], {}, 17),
    ("Resize", [X], [f32(1, 1, 2, 3)], {}, 10),
    ("Upsample", [X], [f32(1, 1, 2, 3)], {}, 9),
    ("Upsample", [X], [], {"scales": [1.0, 1.0, 2.0, 3.0]}, 7),
    ("Gather", [X], [i64(0, 1, 1).reshape(3, 1)], {"axis": -2}, 17),
    ("Gather", [X], [i64(1).reshape(())], {"axis": 1}, 17),
    ("GatherElements", [(2, 3)], [i64(0, 1).reshape(2, 1)], {"axis": 1}, 17),
    ("GatherND", [X], [i64(0, 1, 1, 0).reshape(2, 2)], {}, 17),
    ("GatherND", [X], [i64(0, 1).reshape(2, 1)], {"batch_dims": 1}, 17),
    ("OneHot", [], [i64(0, 1, 2), i64(4), f32(0, 1)], {"axis": 0}, 17),
    ("TopK", [X], [i64(3)], {"axis": 2}, 17),
    ("Range", [], [f32(0).reshape(()), f32(1).reshape(()), f32(0.3).reshape(())], {}, 17),
    ("ConstantOfShape", [], [i64(2, 3)], {}, 17),
    ("EyeLike", [(3, 4)], [], {}, 17),
    ("CumSum", [X], [i64(1).reshape(())], {}, 17),
    ("Trilu", [(3, 4)], [], {}, 17),
    ("Gemm", [(3, 4), (5, 4)], [], {"transB": 1}, 17),
    ("Gemm", [(4, 3), (4, 5)], [], {"transA": 1}, 17),
    ("MatMul", [(2, 1, 3, 4), (5, 4, 6)], [], {}, 17),
    ("MatMul", [(4,), (5, 4, 6)], [], {}, 17),
    ("MatMul", [(5, 3, 4), (4,)], [], {}, 17),
    ("MatMul", [(4,), (4,)], [], {}, 17),
    ("Einsum", [(2, 3, 4), (2, 4, 5)], [], {"equation": "bij, bjk -> bik"}, 17),
    ("Einsum", [(2, 3), (3, 4)], [], {"equation": "ij,jk"}, 17),
    ("ReduceMean", [X], [], {"axes": [-1, 1], "keepdims": 0}, 17),
    ("ReduceMean", [X], [i64(2)], {}, 18),
    ("ReduceSum", [X], [], {"keepdims": 0}, 17),
    ("ReduceSum", [X], [], {"noop_with_empty_axes": 1}, 17),
    ("ReduceMax", [X], [], {}, 12),
    ("LayerNormalization", [X, (6, 5), (6, 5)], [], {"axis": 2}, 17),
    ("InstanceNormalization", [X, (4,), (4,)], [], {}, 17),
    ("BatchNormalization", [X, (4,), (4,), (4,), (4,)], [], {}, 17),
    ("LRN", [X], [], {"size": 3}, 17),
    ("GlobalAveragePool", [X], [], {}, 17),
    ("GridSample", [(1, 2, 4, 4), (1, 3, 5, 2)], [], {}, 17),
    ("LSTM", [(3, 2, 4), (1, 20, 4), (1, 20, 5)], [], {"hidden_size": 5}, 17),
    (
        "GRU",
        [(3, 2, 4), (1, 15, 4), (1, 15, 5)],
        [],
        {"hidden_size": 5},
        17,
    ),
    ("RNN", [(3, 2, 4), (1, 5, 4), (1, 5, 5)], [], {"hidden_size": 5}, 17),
    ("ConvTranspose", [MAP, (2, 3, 3, 3)], [], {"strides": [2, 2], "output_padding": [1, 0]}, 17),
    ("ConvTranspose", [MAP, (2, 3, 3, 3)], [], {"strides": [2, 2], "output_shape": [8, 9]}, 17),
    ("ConvTranspose", [MAP, (2, 3, 3, 3)], [], {"group": 2}, 17),
    ("Conv", [X, (6, 2, 3, 2)], [], {"group": 2, "strides": [2, 1], "pads": [1, 0, 1, 0]}, 17),
    ("RoiAlign", [X, (3, 4)], [i64(0, 0, 1)], {"output_height": 2, "output_width": 3}, 17),
    ("Dropout", [X], [], {}, 17),
    ("CenterCropPad", [X], [i64(4, 9)], {"axes": [2, 3]}, 18),
    ("Identity", [X], [], {}, 17),
    ("PRelu", [X, (4, 1, 1)], [], {}, 17),
    ("LpNormalization", [X], [], {}, 17),
    ("MeanVarianceNormalization", [X], [], {}, 17),
    ("Softmax", [X], [], {"axis": 1}, 17),
    ("ScatterND", [(4, 3)], [i64(1).reshape(1, 1), np.ones((1, 3), np.float32)], {}, 17),
]


@pytest.mark.parametrize("case", OPERATORS, ids=lambda case: case[0])
def test_operators_make_what_onnx_runtime_makes(case: Any) -> None:
    operator, shapes, constants, attributes, opset = case
    feeds = {f"x{i}": np.ones(shape, np.float32) for i, shape in enumerate(shapes)}
    names = [*feeds, *(f"c{i}" for i in range(len(constants)))]
    tensors = dict(zip(names[len(feeds) :], constants, strict=True))
    results = [*["y"], *[f"y{i}" for i in range(1, {"TopK": 2, "Split": 2}.get(operator, 1))]]
    node = helper.make_node(operator, names, results, **attributes)
    closed, computed = shapes_of([node], feeds, opset, tensors)
    assert closed == computed
    names_only, _ = shapes_of([node], feeds, opset, tensors, is_open=True)
    numbers = {f"s{number}": number for number in range(1, 30)}
    for size, number in zip(names_only or computed, computed, strict=True):
        assert str(size).startswith("unknown") or eval(str(size), {}, numbers) == number


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("directions", [1, 2])
def test_a_quantised_lstm_has_its_recurrent_weights_transposed(
    named: bool, directions: int
) -> None:
    """Inputs of 4 numbers, states of 5."""
    scale, zero = np.full(directions, 0.1, np.float32), np.zeros(directions, np.uint8)
    constants = {
        "w": np.ones((directions, 4, 20), np.uint8),
        "r": np.ones((directions, 5, 20), np.uint8),
        "scale": scale,
        "zero": zero,
    }
    names = ["x", "w", "r", *[""] * 5, "scale", "zero", "scale", "zero"]
    options: dict[str, Any] = {"hidden_size": 5} if named else {}
    if directions == 2:
        options["direction"] = "bidirectional"
    domain = "com.microsoft"
    node = helper.make_node("DynamicQuantizeLSTM", names, ["y"], domain=domain, **options)
    x = {"x": np.ones((3, 2, 4), np.float32)}
    inferred, computed = shapes_of([node], x, constants=constants)
    assert inferred == (3, directions, 2, 5)
    assert not named or computed == inferred
    assert shapes_of([node], x, constants=constants, is_open=True)[0] == ("s3", directions, "s2", 5)
