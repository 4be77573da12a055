"""Writes that are no box, or not surely one."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from flatfold.frontend import canonicalize
from tests.frontend.canonical import assert_same_function
from tests.frontend.execution import counts, from_text, run
from tests.frontend.scatters import box, scatter


@pytest.mark.parametrize(
    ("indices", "updates", "call"),
    [
        (box((0, 2), (0, 2))[:, ::-1], "float[2, 2, 5] u", "ScatterND (x, i, u)"),
        (box((0, 2), (0, 4))[:, ::2], "float[2, 2, 5] u", "ScatterND (x, i, u)"),
        (box((0, 2), (1, 2)).repeat(2, 1), "float[2, 2, 5] u", "ScatterND (x, i, u)"),
        (box((0, 2), (-1, 1)), "float[2, 2, 5] u", "ScatterND (x, i, u)"),
        (box((0, 2), (0, 2)), "float[2, 2, 5] u", 'ScatterND <reduction = "add"> (x, i, u)'),
        (box((0, 2), (0, 2)).reshape(4, 2), "float[4, 5] u", "ScatterND (x, i, u)"),
        (
            np.zeros((2, 1, 5), np.int64),
            "float[2, 1, 5] u",
            'ScatterElements <reduction = "max"> (x, i, u)',
        ),
        (np.indices((2, 3, 5))[1] % 2, "float[2, 3, 5] u", "ScatterElements <axis = 1> (x, i, u)"),
    ],
    ids=["backwards", "strided", "repeated", "wrapped", "added", "flat", "largest", "cyclic"],
)
def test_what_is_no_box_in_order_is_left_alone(
    indices: NDArray[np.int64], updates: str, call: str
) -> None:
    model = scatter(indices, updates=updates, call=call)
    (node,) = model.graph
    canonicalize(model)
    assert list(model.graph) == [node]


def test_overridable_indices_are_no_constants() -> None:
    model = from_text(
        """g (float[3] x, float[1] u, int64[1, 1] i = {0}) => (float[3] y) {
            y = ScatterND (x, i, u)
        }"""
    )
    assert_same_function(model)
    assert counts(model) == {"ScatterND": 1}
    feeds = {"x": np.zeros(3, np.float32), "u": np.ones(1, np.float32)}
    assert run(model, {**feeds, "i": np.array([[2]])})[0].tolist() == [0, 0, 1]


def test_older_operators_are_left_alone() -> None:
    model = from_text(
        """<ir_version: 7, opset_import: ["" : 11]>
        g (float[3] x, float[1] u) => (float[3] y) <int64[1, 1] i = {0}> {
            y = ScatterND (x, i, u)
        }"""
    )
    assert_same_function(model)
    assert counts(model) == {"ScatterND": 1}
