"""Two operators of one kind become one, to the bit; others that look like them stay."""

from __future__ import annotations

import pytest

from tests.frontend.assertions import assert_same_function
from tests.frontend.execution import counts, from_text

CONSTANTS = """<int64[1] one = {1}, int64[1] two = {2}, int64[1] three = {3}, int64[1] last = {-1},
int64[2] wide = {-1, 12}, int64[3] split = {4, -1, 2}, int64[3] zero = {0, 3, 4},
int64 place = {-1}>"""


def graph(body: str) -> str:
    return f"""g (float[2, 4, 6] x, int32[2, 4, 6] i) => (float[a, b, c] y) {CONSTANTS} {{
        r = Abs (x)
        {body} }}"""


@pytest.mark.parametrize(
    ("body", "left"),
    [
        (
            "a = Transpose <perm = [1, 2, 0]> (r) y = Transpose <perm = [1, 2, 0]> (a)",
            {"Abs": 1, "Transpose": 1},
        ),
        (
            "a = Transpose <perm = [1, 2, 0]> (r) b = Transpose <perm = [0, 2, 1]> (a)"
            " y = Transpose <perm = [2, 1, 0]> (b)",
            {"Abs": 1, "Transpose": 1},
        ),
        ("a = Reshape (r, wide) y = Reshape (a, split)", {"Abs": 1, "Reshape": 1}),
        ("a = Flatten (r) y = Reshape (a, split)", {"Abs": 1, "Reshape": 1}),
        ("a = Unsqueeze (r, one) y = Reshape (a, split)", {"Abs": 1, "Reshape": 1}),
        ("a = Cast <to = 11> (r) y = Cast <to = 1> (a)", {"Abs": 1}),
        ("a = Cast <to = 7> (i) y = Cast <to = 1> (a)", {"Cast": 1}),
        (
            "a = Slice (r, one, three, one) y = Slice (a, two, last, last)",
            {"Abs": 1, "Slice": 1},
        ),
        (
            "a = Concat <axis = 1> (r, r) b = Neg (r) y = Concat <axis = -2> (b, a, b)",
            {"Abs": 1, "Neg": 1, "Concat": 1},
        ),
        (
            "a = Gather <axis = 1> (r, place) y = Unsqueeze (a, one)",
            {"Abs": 1, "Gather": 1},
        ),
        (
            "a = Gather <axis = -1> (r, place) y = Unsqueeze (a, two)",
            {"Abs": 1, "Gather": 1},
        ),
        ("a = Reshape (r, wide) y = Reshape <allowzero = 0> (a, zero)", {"Abs": 1, "Reshape": 1}),
        (
            "a = Slice (r, last, one, two, last) y = Slice (a, one, three, one, two)",
            {"Abs": 1, "Slice": 1},
        ),
    ],
)
def test_two_become_one(body: str, left: dict[str, int]) -> None:
    model = from_text(graph(body))
    assert_same_function(model)
    assert counts(model) == left


@pytest.mark.parametrize(
    "body",
    [
        "a = Transpose (r) y = Transpose <perm = [0, 2, 1]> (a)",  # reverses, without attribute
        "a = Cast <to = 6> (r) y = Cast <to = 1> (a)",  # cuts off what is behind the point
        "a = Cast <to = 10> (r) y = Cast <to = 1> (a)",  # rounds
        "a = Cast <to = 1> (i) b = Cast <to = 7> (a) y = Cast <to = 1> (b)",
        "a = Slice (r, one, three, one) y = Slice (a, one, two, one)",  # of one axis
        "a = Concat <axis = 1> (r, r) y = Concat <axis = 0> (a, a)",  # of two axes
        "a = Concat <axis = 1> (r, r) b = Neg (a) y = Concat <axis = 1> (b, a)",  # read twice
        "a = Gather <axis = 1> (r, place) y = Unsqueeze (a, two)",  # elsewhere
    ],
)
def test_what_is_not_one_operator_stays(body: str) -> None:
    model = from_text(graph(body))
    before = counts(model)
    assert_same_function(model)
    assert {kind: n for kind, n in counts(model).items() if kind != "Abs"} == {
        kind: n for kind, n in before.items() if kind != "Abs"
    }


SIZES = """g (float[N, 4, M] x) => (int64[a] y, int64[b] z)
    <int64 first = {0}, int64 two = {2}, int64[1] axis = {0}, int64[1] four = {4},
    int64[2] more = {3, 5}> {
        r = Relu (x)
        s = Shape (r)
"""


def test_sizes_that_are_computed_one_by_one_stay_lists() -> None:
    """As one exporter writes view(2 * n, 4), with a number of no axes in between."""
    model = from_text(
        SIZES
        + """n = Gather (s, first)
        k = Mul (two, n)
        a = Unsqueeze (k, axis)
        b = Unsqueeze (n, axis)
        y = Concat <axis = 0> (a, four)
        z = Concat <axis = 0> (four, b)
    }"""
    )
    assert_same_function(model)
    assert counts(model) == {"Relu": 1, "Shape": 1, "Gather": 1, "Mul": 1, "Concat": 2}


@pytest.mark.parametrize("reader", ["Mul (n, n)", "Neg (n)"])
def test_a_size_that_is_read_as_a_number_stays_one(reader: str) -> None:
    model = from_text(
        SIZES
        + f"""n = Gather (s, first)
        b = Unsqueeze (n, axis)
        k = {reader}
        y = Expand (k, four)
        z = Concat <axis = 0> (four, b)
    }}"""
    )
    before = counts(model)
    assert_same_function(model)
    assert counts(model) == before


def test_lists_of_sizes_are_joined_in_each_list_that_they_are_part_of() -> None:
    model = from_text(
        SIZES
        + """n = Gather (s, axis)
        m = Add (n, four)
        a = Concat <axis = 0> (n, m)
        y = Concat <axis = 0> (four, a)
        z = Concat <axis = 0> (a, more)
    }"""
    )
    assert_same_function(model)
    assert counts(model) == {"Relu": 1, "Shape": 1, "Gather": 1, "Add": 1, "Concat": 2}


def test_a_list_that_is_also_read_as_it_is_stays() -> None:
    model = from_text(
        SIZES
        + """n = Gather (s, axis)
        m = Add (n, four)
        a = Concat <axis = 0> (n, m)
        y = Concat <axis = 0> (four, a)
        z = Neg (a)
    }"""
    )
    before = counts(model)
    assert_same_function(model)
    assert counts(model) == before


def test_a_slice_that_is_read_elsewhere_stays() -> None:
    body = (
        "a = Slice (r, one, three, one) b = Slice (a, two, last, last) c = Relu (a) y = Mul (b, d)"
    )
    body = body.replace("y = Mul (b, d)", "d = Slice (c, two, last, last) y = Mul (b, d)")
    model = from_text(graph(body))
    assert_same_function(model)
    assert counts(model) == {"Abs": 1, "Relu": 1, "Slice": 3, "Mul": 1}


def test_writes_in_place_behind_transposes_leave_none() -> None:
    """As PyTorch's exporter spells y[:, :, 0] = v, y[:, :, -1] = v, y[..., 0] = v."""
    model = from_text(
        """g (float[1, 2, 4, 5] x) => (float[a, b, c, d] y)
        <int64[1, 1] first = {0}, int64[1, 1] last = {3}, float[1, 2, 1, 5] v = {1.0, 2.0, 3.0,
        4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0}, float[1, 2, 4, 1] w = {1.0, 2.0, 3.0, 4.0, 5.0, 6.0,
        7.0, 8.0}> {
            r = Relu (x)
            t = Transpose <perm = [2, 1, 0, 3]> (r)
            a = ScatterND (t, first, v)
            k = Identity (a)
            b = ScatterND (k, last, v)
            u = Transpose <perm = [3, 1, 0, 2]> (b)
            c1 = ScatterND (u, first, w)
            y = Transpose <perm = [3, 1, 2, 0]> (c1)
        }"""
    )
    assert_same_function(model)
    assert counts(model) == {"Relu": 1, "Slice": 3, "Concat": 3}
