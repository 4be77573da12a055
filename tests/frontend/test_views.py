"""Views of views become one view or none, to the bit; so do reductions of single elements."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from flatfold.frontend import canonicalize
from tests.frontend.assertions import assert_same_function
from tests.frontend.execution import counts, from_text, random_feeds, run

CONSTANTS = """<int64[1] zero = {0}, int64[1] one = {1}, int64[1] two = {2}, int64[1] last = {-1},
int64[2] ends = {0, -1}, int64[2] pair = {6, -1}>"""


def graph(body: str, x: str = "2, 1, 3", more: str = "", opset: int = 20) -> ir.Model:
    """`body` on r, of the shape `x`; y has as many axes as it turns out to have."""
    model = from_text(
        f"""<ir_version: 8, opset_import: ["" : {opset}]>
        g (float[{x}] x) => (float[a] y{more}) {CONSTANTS} {{ r = Exp (x) {body} }}"""
    )
    model.graph.outputs[0].shape = ir.Shape([None] * run(model, random_feeds(model))[0].ndim)
    return model


GONE = {
    "u = Unsqueeze (r, one) y = Squeeze (u, one)": {},
    "s = Squeeze (r, one) y = Unsqueeze (s, one)": {},
    "f = Flatten <axis = 2> (r) v = Reshape (f, pair) s = Shape (r) y = Reshape (v, s)": {},
    "t = Transpose <perm = [1, 0, 2]> (r) s = Shape (r) y = Reshape (t, s)": {},
    "u = Unsqueeze (r, zero) y = Unsqueeze (u, last)": {"Unsqueeze": 1},
    "u = Unsqueeze (r, two) y = Unsqueeze (u, ends)": {"Unsqueeze": 1},
    "u = Unsqueeze (r, ends) s = Squeeze (u, two) y = Squeeze (s, zero)": {"Reshape": 1},
    "s = Squeeze (r, one) y = Unsqueeze (s, last)": {"Reshape": 1},
    "t = Transpose <perm = [1, 0, 2]> (r) y = Squeeze (t, zero)": {"Reshape": 1},
    "u = Unsqueeze (r, zero) y = Transpose <perm = [1, 0, 2, 3]> (u)": {"Reshape": 1},
    "u = Unsqueeze (r, zero) v = Unsqueeze (u, zero) w = Abs (v) y = Squeeze (w, zero)": {
        "Unsqueeze": 1,
        "Abs": 1,
        "Squeeze": 1,
    },
}


@pytest.mark.parametrize("x", ["2, 1, 3", "n, 1, 3", "2, 1, n"])
@pytest.mark.parametrize("body", GONE)
def test_views_of_views(body: str, x: str) -> None:
    if "pair" in body and "n" in x:
        pytest.skip("of an open size it has the same size by chance only")
    model = graph(body, x)
    assert_same_function(model)
    assert counts(model) == {"Exp": 1, **GONE[body]}


def test_views_of_an_older_opset_have_their_axes_in_attributes() -> None:
    body = """u = Unsqueeze <axes = [2]> (r) v = Unsqueeze <axes = [0, -1]> (u) a = Abs (v)
        m = ReduceMean <axes = [0], keepdims = 0> (a) y = Squeeze <axes = [-1]> (m)"""
    model = graph(body, "2, 3, n", opset=11)
    assert_same_function(model)
    assert counts(model) == {"Exp": 1, "Unsqueeze": 1, "Abs": 1, "Squeeze": 1}
    axes = [list(n.attributes["axes"].as_ints()) for n in model.graph if "axes" in n.attributes]
    assert axes == [[0, 3, 5], [0, 5]]


STAYS = {
    "t = Transpose <perm = [1, 2, 0]> (r) y = Squeeze (t, zero)": "2, 1, n",  # moves elements
    "t = Transpose <perm = [1, 0, 2]> (r) y = Unsqueeze (t, zero)": "2, n, 3",  # n need not be 1
    "u = Unsqueeze (r, one) a = Abs (u) b = Squeeze (u, one) y = Add (a, b)": "2, 1, 3",
    "s = Squeeze (r, one) a = Abs (s) u = Unsqueeze (s, last) y = Mul (a, u)": "2, 1, 2",
    "s = Squeeze (r, one) y = Unsqueeze (s, last)": "n, 1, m",  # two sizes, and one of them moves
}


@pytest.mark.parametrize("body", STAYS)
def test_what_no_constant_says_and_what_is_read_elsewhere_stays(body: str) -> None:
    model = graph(body, STAYS[body])
    before = counts(model)
    if body.startswith("u"):  # what undoes the other goes, of which there is another reader
        del before["Squeeze"]
    assert_same_function(model)
    assert counts(model) == before


def test_a_view_that_is_an_output_stays() -> None:
    model = graph("u = Squeeze (r, one) y = Unsqueeze (u, last)", more=", float[c, d] u")
    assert_same_function(model)
    assert counts(model) == {"Exp": 1, "Squeeze": 1, "Unsqueeze": 1}


def test_a_tensor_without_elements_keeps_its_sizes() -> None:
    """[0, -1] does not say what -1 is of a tensor with no element."""
    body = "u = Unsqueeze (r, zero) y = Squeeze (u, ends)"
    model = graph(body, "n, m, 1")
    x = np.zeros((0, 5, 1), np.float32)
    before = run(model, {"x": x})
    canonicalize(model)
    assert run(model, {"x": x})[0].shape == before[0].shape == (0, 5)


@pytest.mark.parametrize("operator", ["Mean", "Sum", "Max", "Min", "Prod"])
@pytest.mark.parametrize(("keeps", "left"), [(1, {}), (0, {"Squeeze": 1})])
@pytest.mark.parametrize("opset", [11, 13, 18])
def test_reductions_of_single_elements(
    operator: str, keeps: int, left: dict[str, int], opset: int
) -> None:
    as_input = opset >= (13 if operator == "Sum" else 18)
    axes = f"keepdims = {keeps}" + ("" if as_input else ", axes = [1]")
    body = f"y = Reduce{operator} <{axes}> (r{', one' if as_input else ''})"
    model = graph(body, "n, 1, 3", opset=opset)
    assert_same_function(model)
    assert counts(model) == {"Exp": 1, **left}


@pytest.mark.parametrize(
    "body",
    [
        "y = ReduceMean <keepdims = 0> (r, zero)",  # of two
        "y = ReduceMean <keepdims = 0> (r, last)",  # of as many as there are
        "y = ReduceMean <keepdims = 0> (r)",  # of all
        "y = ReduceL2 <keepdims = 0> (r, one)",  # the absolute value
        "y = ReduceLogSum <keepdims = 0> (r, one)",
        "y = ReduceSumSquare <keepdims = 0> (r, one)",
    ],
)
def test_other_reductions_stay(body: str) -> None:
    model = graph(body, "2, 1, n")
    before = counts(model)
    assert_same_function(model)
    assert counts(model) == before
