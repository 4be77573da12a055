"""Sizes that are known only in a run are read from the inputs."""

from __future__ import annotations

import pytest

from tests.frontend.assertions import assert_same_function
from tests.frontend.execution import counts, from_text

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
