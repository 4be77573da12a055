"""Sizes that are known only in a run are read from the inputs."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from flatfold.frontend import canonicalize
from tests.frontend.assertions import assert_same_function
from tests.frontend.execution import counts, from_text, run

GRAPH = """g (float[N, 4, M] x, float[4, 1] c) => (float[p, q, r] y, float[s, t] z)
    <int64[1] first = {0}, int64[1] third = {2}, int64[2] two = {3, 4}> {
        r = Relu (x)
        s = Shape (r)
        n = Gather (s, first)
        m = Gather (s, third)
        t = Concat <axis = 0> (n, two, m)
        e = Expand (c, t)
        y = ReduceMax <keepdims = 0> (e, first)
        u = Concat <axis = 0> (m, n)
        z = ConstantOfShape (u)
    }"""


def test_symbolic_sizes_are_read_from_inputs() -> None:
    model = from_text(GRAPH)
    assert_same_function(model)
    glue = {"Shape": 2, "Concat": 2}
    assert counts(model) == {"Expand": 1, "ReduceMax": 1, "ConstantOfShape": 1, **glue}


@pytest.mark.parametrize("opset", [13, 14])
def test_before_shape_had_a_start(opset: int) -> None:
    text = f'<ir_version: 7, opset_import: ["" : {opset}]>' + GRAPH
    text = text.replace(
        "ReduceMax <keepdims = 0> (e, first)", "ReduceMax <axes = [0], keepdims = 0> (e)"
    )
    model = from_text(text)
    assert_same_function(model)
    assert counts(model) == {
        "Relu": 1,
        "Shape": 1,
        "Gather": 2,
        "Concat": 2,
        "Expand": 1,
        "ReduceMax": 1,
        "ConstantOfShape": 1,
    }


def test_sizes_of_no_input_stay_computed() -> None:
    model = from_text(
        """g (float[N, 4] x, bool[N] keep) => (float[p, q] y) <int64[1] one = {1}> {
            k = Compress <axis = 0> (x, keep)
            s = Shape <end = 1> (k)
            t = Concat <axis = 0> (s, one)
            y = ConstantOfShape (t)
        }"""
    )
    assert_same_function(model)
    assert counts(model) == {"Compress": 1, "Shape": 1, "Concat": 1, "ConstantOfShape": 1}


def narrowed(end: str, last: str = "y = Identity (t)") -> ir.Model:
    """A map of W columns in a frame of 2 and 3 columns, cut from column 2 to `end`."""
    return from_text(
        f"""<ir_version: 8, opset_import: ["" : 17]>
        g (float[N, 4, W] x) => (float[N, 4, Q] y)
        <int64[6] frame = {{0, 0, 2, 0, 0, 3}}, int64[1] one = {{1}}, int64[1] two = {{2}},
         int64[1] six = {{6}}, int64[1] axis = {{2}}> {{
            p = Pad (x, frame)
            s = Shape (x)
            w = Gather (s, axis)
            less = Sub (w, one)
            half = Div (less, two)
            {end}
            t = Slice (p, two, e, axis)
            {last}
        }}"""
    )


@pytest.mark.parametrize(
    "end",
    [
        "e = Add (two, w)",
        "e = Add (w, six)",
        "a = Add (w, six) e = Sub (a, two)",
        "e = Add (less, six)",
        "e = Identity (w)",
        "h = Shape (p) a = Gather (h, axis) e = Sub (a, one)",
    ],
)
def test_ends_of_slices_that_follow_from_the_size_are_constant(end: str) -> None:
    model = narrowed(end)
    feeds = [{"x": np.random.default_rng(w).random((2, 4, w), np.float32)} for w in (1, 2, 3, 9)]
    before = [run(model, each) for each in feeds]
    assert_same_function(model)
    assert counts(model) == {"Pad": 1, "Slice": 1}
    for each, (expected,) in zip(feeds, before, strict=True):
        np.testing.assert_array_equal(run(model, each)[0], expected)


@pytest.mark.parametrize("end", ["e = Add (two, half)", "m = Mul (w, w) e = Add (m, one)"])
def test_other_ends_are_computed(end: str) -> None:
    model = narrowed(end)
    assert_same_function(model)
    assert counts(model)["Slice"] == 1
    assert counts(model)["Add"] == 1


def test_a_slice_of_an_open_axis_has_the_size_of_what_it_is_cut_from() -> None:
    model = narrowed("e = Add (two, w)", "y = Relu (t)")
    canonicalize(model)
    (relu,) = (node for node in model.graph if node.op_type == "Relu")
    assert str(relu.inputs[0].shape) == "[N,4,W]"


def reshaped(sizes: str) -> ir.Model:
    """[N, 4, M, K] as `sizes`, any of which may be 0, as the dynamo exporter writes it."""
    return from_text(
        f"""<ir_version: 8, opset_import: ["" : 18]>
        g (float[N, 4, M, K] x) => (float[a, b, c] y)
        <int64[1] four = {{4}}, int64[1] rest = {{-1}}, int64[1] none = {{0}}> {{
            r = Relu (x)
            n = Shape <start = 0, end = 1> (r)
            m = Shape <start = 2, end = 3> (r)
            k = Shape <start = 3, end = 4> (r)
            mk = Mul (m, k)
            s = Concat <axis = 0> ({sizes})
            y = Reshape <allowzero = 1> (r, s)
        }}"""
    )


def test_a_view_that_keeps_a_size_has_constant_sizes() -> None:
    model = reshaped("n, four, rest")
    assert_same_function(model)
    assert counts(model) == {"Relu": 1, "Reshape": 1}
    view = model.graph.outputs[0].producer()
    assert view is not None and "allowzero" not in view.attributes


@pytest.mark.parametrize("sizes", ["n, four, mk", "none, four, m"])
def test_a_view_of_no_elements_keeps_its_sizes(sizes: str) -> None:
    """Of no images, -1 says nothing: all sizes are needed."""
    model = reshaped(sizes)
    canonicalize(model)
    assert counts(model)["Concat"] == 1
    x = np.zeros((0, 4, 2, 3), np.float32)
    (y,) = run(model, {"x": x})
    assert y.size == 0
