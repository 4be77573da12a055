"""Sparse weights are made dense when a file is read."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from flatfold.errors import InputError
from flatfold.frontend import from_proto
from tests.frontend.execution import run

VALUES = np.array([1.5, -2.0, 3.0], np.float32)
FLAT = np.array([0, 4, 5])
DENSE = np.array([[1.5, 0, 0], [0, -2, 3]], np.float32)
X = np.array([[1, 2, 3], [4, 5, 6]], np.float32)


def sparse(
    indices: NDArray[np.int64], dims: list[int], values: NDArray[np.generic] = VALUES
) -> onnx.SparseTensorProto:
    return helper.make_sparse_tensor(
        numpy_helper.from_array(values, "w"), numpy_helper.from_array(indices), dims
    )


def model(tensor: onnx.SparseTensorProto, kind: str) -> onnx.ModelProto:
    text = "g (float[2, 3] x) => (float[2, 3] y) { y = Add (x, w) }"
    proto = onnx.parser.parse_model('<ir_version: 8, opset_import: ["" : 17]>' + text)
    if kind == "initializer":
        proto.graph.sparse_initializer.append(tensor)
    else:
        constant = helper.make_node("Constant", [], ["w"], sparse_value=tensor)
        proto.graph.node.insert(0, constant)
    return proto


@pytest.mark.parametrize("kind", ["initializer", "Constant"])
@pytest.mark.parametrize("indices", [FLAT, np.stack([FLAT // 3, FLAT % 3], axis=1)])
def test_sparse_weights_are_made_dense(kind: str, indices: NDArray[np.int64]) -> None:
    read = from_proto(model(sparse(indices, [2, 3]), kind))
    np.testing.assert_array_equal(run(read, {"x": X})[0], X + DENSE)


def test_an_empty_sparse_weight_is_zero() -> None:
    nothing = sparse(np.zeros(0, np.int64), [2, 3], np.zeros(0, np.float32))
    np.testing.assert_array_equal(run(from_proto(model(nothing, "initializer")), {"x": X})[0], X)


@pytest.mark.parametrize("kind", ["initializer", "Constant"])
@pytest.mark.parametrize(
    ("indices", "dims", "cause"),
    [
        (FLAT, [2, 2], "an index outside its shape"),
        (FLAT - 1, [2, 3], "an index outside its shape"),
        (np.array([0, 4, 4]), [2, 3], "two values at one index"),
        (FLAT[:2], [2, 3], "3 values and indices of shape \\[2\\]"),
        (FLAT, [-2, 3], "the shape \\[-2, 3\\]"),
        (FLAT, [2**20, 2**20], "call for 8796093022208 bytes"),
    ],
)
def test_a_malformed_or_huge_one_is_refused(
    kind: str, indices: NDArray[np.int64], dims: list[int], cause: str
) -> None:
    with pytest.raises(InputError, match=cause):
        from_proto(model(sparse(indices, dims), kind))
