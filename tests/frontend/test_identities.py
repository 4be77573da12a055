"""Operators that change nothing, and others that look like them."""

from __future__ import annotations

import pytest

from flatfold.frontend import canonicalize
from tests.frontend.assertions import assert_same_function
from tests.frontend.execution import counts, from_text


@pytest.mark.parametrize(
    "body",
    [
        "y = Transpose <perm = [0, 1, 2]> (r)",
        "t = Transpose <perm = [2, 0, 1]> (r)  y = Transpose <perm = [1, 2, 0]> (t)",
        "y = Pad (r, zeros)",
        "y = Concat <axis = 1> (r)",
        "y = Slice (r, first, all, first)",
        "y = Slice (r, far, four, second)",
        "s = Shape (r)  y = Expand (r, s)",
        "y = Expand (r, ones)",
        "y = Reshape (r, same)",
        "c = Concat <axis = 1> (x, r)  y = Slice (c, four, eight, second)",
        "y = Tile (r, each)",
        "y = Max (r)",
        "y = Min (r)",
        "y = Mean (r)",
        "y = Sum (r)",
        "y = Where (yes, r, x)",
        "y = Where (no, x, r)",
    ],
)
def test_operators_that_change_nothing(body: str) -> None:
    model = from_text(
        f"""g (float[N, 4, 6] x) => (float[N, 4, 6] y)
        <int64[6] zeros = {{0, 0, 0, 0, 0, 0}}, int64[1] first = {{0}}, int64[1] far = {{-9}},
        int64[1] all = {{9223372036854775807}}, int64[1] second = {{1}}, int64[1] four = {{4}},
        int64[1] eight = {{8}}, int64[3] ones = {{1, 4, 1}}, int64[3] same = {{-1, 4, 6}},
        int64[3] each = {{1, 1, 1}}, bool[4, 1] yes = {{1, 1, 1, 1}}, bool no = {{0}}> {{
            r = Relu (x)
            {body}
        }}"""
    )
    assert_same_function(model)
    assert counts(model) == {"Relu": 1}


@pytest.mark.parametrize(
    "body",
    [
        "y = Transpose (x)",
        "y = Transpose <perm = [0, 2, 1]> (x)",
        "y = Slice (x, last, all, first, last)",
        "y = Slice (x, first, three, first)",
        "c = Concat <axis = 1> (x, x)  y = Slice (c, first, three, second)",
        "c = Concat <axis = 2> (x, x)  y = Slice (c, first, three, second)",
        "y = Expand (x, five)",
        "y = Reshape (x, other)",
        "y = Pad (x, zeros)",
        "y = Tile (x, twice)",
        "y = Max (x, x)",
        "n = Neg (x) y = Where (some, x, n)",
        "y = Add (x, zero)",  # 0 where x is -0
    ],
)
def test_operators_that_change_something_stay(body: str) -> None:
    """At some batch sizes at least: at others, rows 0 to 3 may be all of them."""
    model = from_text(
        f"""g (float[N, 4, 4] x) => (float[p, q, r] y)
        <int64[6] zeros = {{0, 0, 0, 0, 0, 1}}, int64[1] first = {{0}}, int64[1] last = {{-1}},
        int64[1] all = {{9223372036854775807}}, int64[1] three = {{3}}, int64[1] second = {{1}},
        int64[1] four = {{4}}, int64[3] five = {{5, 1, 1}}, int64[3] other = {{-1, 2, 8}},
        int64[3] twice = {{1, 2, 1}}, bool[4] some = {{0, 1, 1, 1}}, float zero = {{0.0}}> {{
            {body}
        }}"""
    )
    before = counts(model)
    canonicalize(model)
    assert counts(model) == before


@pytest.mark.parametrize(
    ("body", "left"),
    [
        ("y = Add (r, zeros)", {}),
        ("y = Add (zero, r)", {}),
        ("y = Mul (one, r)", {}),
        ("y = Sub (r, zero)", {}),
        ("y = Div (r, one)", {}),
        ("y = Sub (zero, r)", {"Sub": 1}),
        ("y = Div (one, r)", {"Div": 1}),
        ("y = Add (r, mixed)", {"Add": 1}),
        ("y = Mul (r, zeros)", {"Mul": 1}),
        ("n = Neg (column) y = Add (n, zeros)", {"Neg": 1, "Add": 1}),  # makes three of one
    ],
)
def test_integers_plus_0_and_times_1(body: str, left: dict[str, int]) -> None:
    model = from_text(
        f"""g (int64[N, 3] x, int64[N, 1] column) => (int64[N, 3] y)
        <int64 zero = {{0}}, int64[3] zeros = {{0, 0, 0}}, int64 one = {{1}},
        int64[3] mixed = {{0, 0, 1}}> {{
            k = Constant <value_int = 7> ()
            a = Abs (x)
            r = Max (a, k)
            {body}
        }}"""
    )
    assert_same_function(model)
    assert counts(model) == (left if "column" in body else {"Abs": 1, "Max": 1, **left})


@pytest.mark.parametrize("attributes", ["saturate = 0", 'round_mode = "down"'])
def test_a_castlike_keeps_its_rounding(attributes: str) -> None:
    model = from_text(
        f"""<ir_version: 13, opset_import: ["" : 25]>
        g (float[4] x, float8e5m2[1] like) => (float8e5m2[4] y) {{
            y = CastLike <{attributes}> (x, like)
        }}"""
    )
    node = model.graph.node(0)
    before = {name: attribute.value for name, attribute in node.attributes.items()}
    canonicalize(model)
    (node,) = model.graph
    after = {name: attribute.value for name, attribute in node.attributes.items()}
    after.pop("to", None)
    assert after == before


def test_a_castlike_without_such_attributes_is_a_cast() -> None:
    model = from_text("g (int32[3] x, float[1] like) => (float[3] y) { y = CastLike (x, like) }")
    assert_same_function(model)
    assert counts(model) == {"Cast": 1}
