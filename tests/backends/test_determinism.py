"""Graphs that differ in names and order become the same bytes, and compute the same."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from flatfold.backends.onnxruntime.cpu import OrtCpu
from flatfold.backends.onnxruntime.determinism import stable_names
from flatfold.backends.store.model_file import serialized

HEAD = '<ir_version: 10, opset_import: ["" : 20]> '
DIAMOND = """g (float[n] x) => (float[n] y, float[n] left) <float two = {2}, float three = {3}> {
  left = Mul (x, two)
  right = Mul (x, three)
  sum = Add (left, right)
  y = Sub (sum, two)
}"""
DIAMOND_AGAIN = """g (float[n] x) => (float[n] y, float[n] left)
<float k = {3}, float _000001 = {2}> {
  b = Mul (x, k)
  left = Mul (x, _000001)
  token_7 = Add (left, b)
  y = Sub (token_7, _000001)
}"""
BRANCH = """g (bool c, float[n] x) => (float[n] y) <float k = {2}> {
  twice = Mul (x, k)
  more = Add (twice, k)
  y = If (c) <
    then_branch = t () => (float[n] a) { inner = Add (more, k) a = Neg (inner) },
    else_branch = e () => (float[n] b) { other = Mul (twice, x) b = Neg (other) }
  >
}"""


def canonical(text: str) -> ir.Model:
    model = ir.from_onnx_text(HEAD + text)
    stable_names(model)
    return model


def test_names_and_order_do_not_matter() -> None:
    first = canonical(DIAMOND)
    assert [node.op_type for node in first.graph] == ["Mul", "Mul", "Add", "Sub"]
    assert [value.name for value in first.graph.outputs] == ["y", "left"]
    plain = DIAMOND_AGAIN.replace("_000001", "other")
    assert serialized(canonical(plain)) == serialized(first)


def test_a_name_in_use_is_not_given_twice() -> None:
    model = canonical(DIAMOND_AGAIN)
    names = [v.name for node in model.graph for v in node.outputs] + list(model.graph.initializers)
    assert len(set(names)) == len(names) == 6


@pytest.mark.parametrize("text", [DIAMOND, DIAMOND_AGAIN])
def test_the_result_stays(text: str) -> None:
    x = np.arange(4, dtype=np.float32)
    with OrtCpu().build(canonical(text), {}) as engine:
        y, left = engine(x)
    np.testing.assert_array_equal(y, 5 * x - 2)
    np.testing.assert_array_equal(left, 2 * x)


def test_graphs_inside_nodes_still_read_the_outer_values() -> None:
    model = canonical(BRANCH)
    assert serialized(canonical(BRANCH.replace("twice", "t9").replace("inner", "i9"))) == (
        serialized(model)
    )
    x = np.arange(4, dtype=np.float32)
    with OrtCpu().build(model, {}) as engine:
        np.testing.assert_array_equal(engine(np.array(True), x), -(2 * x + 4))
        np.testing.assert_array_equal(engine(np.array(False), x), -(2 * x * x))


def test_a_deep_graph_needs_no_deep_stack() -> None:
    nodes = "".join(f"v{i + 1} = Neg (v{i}) " for i in range(4000))
    model = canonical(f"g (float[n] v0) => (float[n] v4000) {{ {nodes} }}")
    assert len(model.graph) == 4000
    assert [model.graph[i].inputs[0].name for i in (0, 1)] == ["v0", "_000000"]
