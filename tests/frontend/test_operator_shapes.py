"""The sizes that windows leave, compared with what ONNX Runtime computes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper

from flatfold.frontend.canonicalization.graph_shapes import evaluate_shapes
from tests.frontend.execution import run

AUTO = ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER")


def shapes_of(nodes: list[onnx.NodeProto], feeds: dict[str, Any], opset: int = 22) -> Any:
    """The shape of `y` that is inferred, and the one that ONNX Runtime computes, if it runs."""
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
        for name, x in feeds.items()
    ]
    graph = helper.make_graph(
        nodes, "g", inputs, [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    parsed = ir.from_proto(model)
    evaluate_shapes(parsed.graph, dict(parsed.opset_imports))
    (y,) = parsed.graph.outputs
    inferred = None if y.shape is None else tuple(y.shape)
    try:
        (result,) = run(ir.from_proto(model), feeds)
    except Exception:
        return inferred, None
    return inferred, result.shape


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
