"""GatherND, stacked tensors and sequences, written by hand."""

from __future__ import annotations

import numpy as np
import pytest

from flatfold.frontend import canonicalize
from tests.frontend.assertions import assert_same_function
from tests.frontend.execution import counts, from_text, run


def test_gather_nd_of_one_axis() -> None:
    model = from_text(
        """g (float[4, N] x) => (float[3, N] y) <int64[3, 1] i = {2, -1, 2}> {
            y = GatherND (x, i)
        }"""
    )
    assert_same_function(model)
    assert counts(model) == {"Gather": 1}


def test_gather_nd_between_transposes() -> None:
    model = from_text(
        """g (float[N, 3, 4] x) => (float[N, 3, 2] y) <int64[2, 1] i = {2, -4}> {
            t = Transpose <perm = [2, 0, 1]> (x)
            p = GatherND (t, i)
            y = Transpose <perm = [1, 2, 0]> (p)
        }"""
    )
    assert_same_function(model)
    assert counts(model) == {"Gather": 1}
    indices = model.graph.node(0).inputs[1]
    assert indices is not None and indices.const_value is not None
    assert indices.const_value.numpy().tolist() == [2, 0]  # counted from the front


@pytest.mark.parametrize(
    ("call", "shape"),
    [("GatherND (x, i)", "2"), ("GatherND <batch_dims = 1> (x, j)", "2, 4")],
)
def test_other_gather_nd(call: str, shape: str) -> None:
    model = from_text(
        f"""g (float[2, 3, 4] x) => (float[{shape}] y)
        <int64[2, 3] i = {{0, 1, 2, 1, 2, 3}}, int64[2, 1] j = {{1, 2}}> {{ y = {call} }}"""
    )
    assert_same_function(model)
    assert counts(model) == {"GatherND": 1}


def stacked(axis: int, target: str, sizes: str = "N, 4, 6") -> str:
    return f"""g (float[{sizes}] a, float[{sizes}] b) => (float[p, q, r] y)
        <int64[1] axis = {{{axis}}}, int64[3] target = {{{target}}}> {{
            ar = Unsqueeze (a, axis)
            br = Unsqueeze (b, axis)
            s = Concat <axis = {axis}> (ar, br)
            y = Reshape (s, target)
        }}"""


@pytest.mark.parametrize(
    ("axis", "target", "nodes"),
    [
        (2, "-1, 8, 6", {"Concat": 1, "Reshape": 2, "Transpose": 1}),
        (-2, "0, 8, 6", {"Concat": 1, "Reshape": 2, "Transpose": 1}),
        (3, "0, 4, 12", {"Concat": 1, "Reshape": 2, "Transpose": 1}),
        (1, "-1, 8, 6", {"Concat": 1}),
        (2, "0, 4, 12", {"Concat": 1}),
        (0, "-1, 4, 6", {"Unsqueeze": 2, "Concat": 1, "Reshape": 1}),
        (2, "-1, 24, 2", {"Unsqueeze": 2, "Concat": 1, "Reshape": 1}),
    ],
)
def test_stacks(axis: int, target: str, nodes: dict[str, int]) -> None:
    model = from_text(stacked(axis, target))
    assert_same_function(model)
    assert counts(model) == nodes


def test_stack_with_two_dynamic_sizes() -> None:
    model = from_text(stacked(2, "0, 8, -1", "N, 4, M"))
    assert_same_function(model)
    assert counts(model) == {"Concat": 1, "Reshape": 2, "Transpose": 1}


def test_stack_that_is_read_elsewhere() -> None:
    text = stacked(2, "-1, 8, 6").replace(
        "(float[p, q, r] y)", "(float[p, q, r] y, float[N, 4, 2, 6] s)"
    )
    model = from_text(text)
    assert_same_function(model)
    assert counts(model) == {"Unsqueeze": 2, "Concat": 2, "Reshape": 2, "Transpose": 1}


def sequence(split: str, position: str, extra: str = "", outputs: str = "") -> str:
    return f"""g (float[N, 5] x) => (float[N, k] y{outputs})
        <{split}, int64 last = {{-1}}, int64 at = {{{position}}}> {{
            parts = SplitToSequence <axis = -1> (x, split)
            a = SequenceAt (parts, at)
            b = SequenceAt (parts, last)
            y = Concat <axis = 1> (b, a)
            {extra}
        }}"""


@pytest.mark.parametrize(
    "split", ["int64 split = {2}", "int64[3] split = {1, 3, 1}", "int64[1] split = {5}"]
)
def test_sequences(split: str) -> None:
    model = from_text(sequence(split, "0"))
    assert_same_function(model)
    assert counts(model) == {"Split": 1, "Concat": 1}


def test_constants_are_folded_once_the_sequence_is_gone() -> None:
    extra = "c = Constant <value = float {2.0}> () d = Mul (c, c) z = Add (x, d)"
    model = from_text(sequence("int64 split = {2}", "1", extra, ", float[N, 5] z"))
    assert_same_function(model)
    assert counts(model) == {"Split": 1, "Concat": 1, "Add": 1}


def test_sequence_that_is_read_as_a_whole() -> None:
    extra = "z = ConcatFromSequence <axis = 1> (parts)"
    model = from_text(sequence("int64 split = {2}", "1", extra, ", float[N, 5] z"))
    x = np.arange(10, dtype=np.float32).reshape(2, 5)
    before = run(model, {"x": x})
    canonicalize(model)
    assert counts(model)["SplitToSequence"] == 1
    for old, new in zip(before, run(model, {"x": x}), strict=True):
        np.testing.assert_array_equal(old, new)
