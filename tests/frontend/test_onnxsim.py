"""onnxsim as an optional simplifier."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from flatfold.errors import ExportError
from flatfold.frontend.loading.onnxsim import simplify
from tests.frontend.execution import content, counts, from_text, random_feeds, run


def signature(value: ir.Value) -> tuple[object, ...]:
    return value.name, value.shape, value.dtype


def test_graph_is_simplified_in_a_copy(capfd: pytest.CaptureFixture[str]) -> None:
    model = from_text(
        """g (float[N, 3] x) => (float[N, 3] y) {
            a = Transpose <perm = [1, 0]> (x)
            b = Transpose <perm = [1, 0]> (a)
            y = Relu (b)
        }"""
    )
    before = content(model)
    simpler = simplify(model)
    assert counts(simpler) == {"Relu": 1}
    assert content(model) == before
    assert capfd.readouterr() == ("", "")
    for before_value, after_value in zip(model.graph.inputs, simpler.graph.inputs, strict=True):
        assert signature(before_value) == signature(after_value)
    feeds = random_feeds(model)
    np.testing.assert_array_equal(run(simpler, feeds)[0], run(model, feeds)[0])


def test_failure_is_reported() -> None:
    model = from_text("g (float[2] x) => (float[2] y) { y = Relu (x) }")
    model.graph.node(0).replace_input_with(0, ir.Value(name="nowhere"))
    with pytest.raises(ExportError, match="onnxsim failed") as raised:
        simplify(model)
    assert "\n" not in raised.value.cause


def test_weights_survive() -> None:
    model = from_text("g (float[2] x) => (float[2] y) <float[2] w = {1.0, 2.0}> { y = Mul (x, w) }")
    assert isinstance(simplify(model), ir.Model)
    feeds = random_feeds(model)
    np.testing.assert_array_equal(run(simplify(model), feeds)[0], run(model, feeds)[0])
