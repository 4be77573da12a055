"""Nodes of constants are computed as ONNX Runtime computes them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import flatfold
from tests.fuzz.sketch import run


@pytest.mark.parametrize("opset", [9, 13, 15])
def test_a_norm_of_a_constant_takes_the_statistics_that_it_is_given(opset: int) -> None:
    """ONNX's implementation takes those of the batch before opset 14."""
    text = f"""<ir_version: 8, opset_import: ["" : {opset}]>
    g (float[1, 1, 3] x) => (float[1, 1, 3] y)
    <float[1, 1, 3] c = {{1.0, 2.0, 4.0}}, float[1] a = {{0.5}}, float[1] b = {{2.0}},
     float[1] m = {{0.75}}, float[1] v = {{1.5}}> {{
        n = BatchNormalization <epsilon = 0.01> (c, a, b, m, v)
        y = Add (x, n)
    }}"""
    model = onnx.parser.parse_model(text)
    result = flatfold.optimize(model).model
    feeds = {"x": np.zeros((1, 1, 3), np.float32)}
    before, after = run(model, feeds), run(result, feeds)
    assert [node.op_type for node in result.graph.node] == ["Add"]
    np.testing.assert_allclose(after, before, rtol=2.0**-22)
