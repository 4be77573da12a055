"""Partial evaluation of shape arithmetic with symbolic sizes."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from flatfold.frontend import canonicalize
from flatfold.frontend.canonicalization.graph_shapes import evaluate_shapes
from flatfold.frontend.canonicalization.symbolic_dims import Arange, Size
from tests.frontend.assertions import assert_same_function
from tests.frontend.execution import counts, from_text, run

CONSTANTS = """int64 zero = {0}, int64 one = {1}, int64 two = {2}, int64[1] first = {0},
int64[1] second = {1}, int64[1] third = {2}, int64[1] last = {-1}, int64[1] end = {1000},
int64[1] all = {9223372036854775807}, int64[4] minus = {-1, -1, -1, -1},
int64[4] ones = {1, 1, 1, 1}, int64[2] column = {-1, 1}, int64[2] kept = {0, -1}"""


def known(body: str) -> tuple[tuple[Size, ...], object, tuple[Arange, ...]]:
    """Shape, elements and aranges of `r` in a graph that has `s`, the shape (N, 4, 6, M) of `x`."""
    model = from_text(
        f"g (float[N, 4, 6, M] x, float[N, M] z) => (float[N, M] y) <{CONSTANTS}>"
        f"{{ y = Relu (z)  s = Shape (x)  {body} }}"
    )
    shapes = evaluate_shapes(model.graph, dict(model.opset_imports))
    (result,) = [v for node in model.graph for v in node.outputs if v.name == "r"]
    tensor = shapes.tensors[result]
    elements = None if tensor.elements is None else tensor.elements.tolist()
    return tensor.shape, elements, tensor.aranges


@pytest.mark.parametrize(
    ("body", "elements"),
    [
        ("r = Gather (s, one)", 4),
        ("r = Gather (s, first)", ["N"]),
        ("r = Slice (s, second, end)", [4, 6, "M"]),
        ("r = Slice (s, first, last, first, second)", ["N", 4, 6]),
        ("r = Shape <start = 1, end = -1> (x)", [4, 6]),
        ("r = Concat <axis = 0> (second, s)", [1, "N", 4, 6, "M"]),
        ("a = Gather (s, two) r = Unsqueeze (a, first)", [6]),
        ("a = Gather (s, first) r = Squeeze (a)", "N"),
        ("a = Gather (s, first) r = Squeeze (a, first)", "N"),
        ("a = Gather (s, two) r = Reshape (a, last)", [6]),
        ("r = Cast <to = 6> (s)", ["N", 4, 6, "M"]),
        ("r = Mul (s, two)", [None, 8, 12, None]),
        ("a = Mul (s, one) r = Add (a, zero)", ["N", 4, 6, "M"]),
        ("r = Sub (s, s)", [0, 0, 0, 0]),
        ("r = Div (s, two)", ["(N)//2", 2, 3, "(M)//2"]),
        ("a = Add (s, one) r = Mod (a, two)", [None, 1, 1, None]),
        ("r = Equal (s, minus)", [False, False, False, False]),
        ("a = Equal (s, minus) r = Where (a, ones, s)", ["N", 4, 6, "M"]),
        ("a = Neg (ones) r = Max (s, a)", ["N", 4, 6, "M"]),
        ("r = Range (zero, two, one)", [0, 1]),
        ("r = Expand (one, third)", [1, 1]),
        ("r = ConstantOfShape <value = int64[1] {3}> (third)", [3, 3]),
    ],
)
def test_elements(body: str, elements: object) -> None:
    assert known(body)[1] == elements


def test_named_sizes_pass_through_reshapes() -> None:
    assert known("r = Reshape (x, kept)")[0] == ("N", None)
    assert known("a = Concat <axis = 0> (s, first) r = ConstantOfShape (a)")[0][4:] == (0,)
    assert known("a = Shape (z) r = Reshape (z, a)")[0] == ("N", "M")
    assert known("a = ConstantOfShape (s) r = Shape (a)")[1] == ["N", 4, 6, "M"]
    assert known("r = Reshape (z, column)")[0] == (None, 1)


def test_a_grid_of_indices() -> None:
    body = """n = Gather (s, zero) rows = Range (zero, n, one) i = Reshape (rows, column)
        three = Add (one, two) some = Range (one, three, one) sum = Add (i, some)
        size = Shape (sum)
        a = Expand (i, size) b = Expand (some, size)
        c = Unsqueeze (a, last) d = Unsqueeze (b, last) r = Concat <axis = -1> (c, d)"""
    assert known(body) == (("N", 2, 2), None, (Arange(0, 0), Arange(1, 1)))


def test_unnamed_sizes_are_not_equal() -> None:
    model = from_text(
        """g (float[?, 4] x, float[?, 4] z) => (float[a, b] y, float[c, d] w) {
            s = Shape (x)  y = Expand (z, s)  t = Shape (z)  w = Expand (z, t)
        }"""
    )
    canonicalize(model)
    assert counts(model) == {"Shape": 1, "Expand": 1, "Identity": 1}
    x, z = np.ones((3, 4), np.float32), np.ones((1, 4), np.float32)
    assert [a.shape for a in run(model, {"x": x, "z": z})] == [(3, 4), (1, 4)]


def test_shape_operand_with_several_unknown_sizes() -> None:
    """Sizes that stay where they are become 0, one other becomes -1."""
    model = from_text(
        """g (float[N, 6, M] x) => (float[a, b, c, d] y)
        <int64[1] first = {0}, int64[1] third = {2}, int64[2] two = {3, 2}> {
            s = Shape (x)
            n = Gather (s, first)
            m = Gather (s, third)
            t = Concat <axis = 0> (n, two, m)
            y = Reshape (x, t)
        }"""
    )
    assert_same_function(model)
    assert counts(model) == {"Reshape": 1}
    assert _shape_operand(model) == [0, 3, 2, -1]


def test_shape_operand_that_moves_two_unknown_sizes_stays_computed() -> None:
    model = from_text(
        """g (float[N, M] x) => (float[a, b] y) <int64[2] swap = {1, 0}> {
            s = Shape (x)
            t = Gather (s, swap)
            y = Reshape (x, t)
        }"""
    )
    assert_same_function(model)
    assert counts(model) == {"Shape": 1, "Gather": 1, "Reshape": 1}


def test_a_known_size_of_a_dynamic_shape() -> None:
    model = from_text(
        """g (float[N, 4] x) => (float[N, 4] y, int64 size) <int64 one = {1}> {
            s = Shape (x)
            size = Gather (s, one)
            c = Gather (s, one)
            f = Cast <to = 1> (c)
            y = Mul (x, f)
        }"""
    )
    assert_same_function(model)
    assert counts(model) == {"Shape": 1, "Gather": 1, "Mul": 1}  # the output stays computed


def test_what_a_body_declares_of_its_results_is_no_size() -> None:
    model = from_text(
        """g (float[N, 4] x, bool c) => (float[N, 4] y) {
            y = If (c) <
                then_branch = t () => (float[a, b] p) { s = Shape (x) p = Expand (x, s) },
                else_branch = f () => (float[d, e] q) { q = Abs (x) }
            >
        }"""
    )
    canonicalize(model)
    branch = next(iter(model.graph)).attributes["then_branch"].as_graph()
    assert [node.op_type for node in branch] == ["Identity"]
    assert [str(size) for size in branch.outputs[0].shape or ()] == ["N", "4"]


def _shape_operand(model: ir.Model) -> list[int]:
    (node,) = [node for node in model.graph if node.op_type == "Reshape"]
    operand = node.inputs[1]
    assert operand is not None and operand.const_value is not None
    return [int(size) for size in operand.const_value.numpy()]
