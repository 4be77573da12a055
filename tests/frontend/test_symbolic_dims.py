"""Arithmetic on sizes, compared with numbers in place of the names."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest

from flatfold.frontend.canonicalization.symbolic_dims import (
    ELEMENTWISE,
    Shapes,
    Size,
    bounded,
    broadcast,
)

SIZES: list[Size] = [None, "n", "m", -2, -1, 0, 1, 2, 7]
SHAPES = Shapes()
FUNCTIONS = ELEMENTWISE | {
    "Add": SHAPES.added,
    "Sub": SHAPES.subtracted,
    "Div": SHAPES.quotient,
}

# what the operators do with integers: Div truncates, Mod has the sign of the divisor
NUMBERS: dict[str, Callable[[int, int], int]] = {
    "Add": lambda a, b: a + b,
    "Sub": lambda a, b: a - b,
    "Mul": lambda a, b: a * b,
    "Div": lambda a, b: int(a / b),
    "Mod": lambda a, b: a % b,
    "Equal": lambda a, b: a == b,
    "Min": min,
    "Max": max,
}


@pytest.mark.parametrize("operator", NUMBERS)
def test_what_is_known_holds_for_all_numbers(operator: str) -> None:
    known = 0
    for a, b in itertools.product(SIZES, SIZES):
        result = FUNCTIONS[operator](a, b)
        if result is None or (b == 0 and operator in ("Div", "Mod")):
            continue
        known += 1
        for n, m, other, another in itertools.product((0, 1, 5), (0, 2), (3, -4), (6, -1)):
            names = {"n": n, "m": m}
            first = other if a is None else names.get(a, a) if isinstance(a, str) else a
            second = another if b is None else names.get(b, b) if isinstance(b, str) else b
            if second == 0 and operator in ("Div", "Mod"):
                continue
            expected = NUMBERS[operator](first, second)
            assert (eval(result, {}, names) if isinstance(result, str) else result) == expected
    assert known > 20 or operator in ("Div", "Mod")


def test_sizes_and_numbers_are_added_as_long_as_the_sum_is_not_below_0() -> None:
    longer = SHAPES.added("n", 5)
    assert SHAPES.subtracted(longer, 5) == "n"
    assert SHAPES.subtracted(longer, 2) == SHAPES.added(3, "n")
    assert SHAPES.subtracted(longer, 6) is None
    assert SHAPES.difference(longer, SHAPES.added("n", 7)) == -2
    assert SHAPES.difference(longer, "m") is None
    assert SHAPES.difference(longer, None) is None


def test_quotients_have_one_name() -> None:
    """1 + (s - 1) // 4 is the size of a layer of stride 4: (s + 3) // 4."""
    shapes = Shapes(["s"])
    quotient = shapes.added(1, shapes.quotient(shapes.subtracted("s", 1), 4))
    assert quotient == shapes.divided(shapes.shifted("s", 3), 4)
    assert shapes.divided(quotient, 2) == shapes.divided(shapes.shifted("s", 3), 8)
    assert shapes.difference(shapes.added(quotient, 5), quotient) == 5
    assert shapes.difference(shapes.divided("s", 4), quotient) is None
    assert shapes.subtracted(quotient, 2) is None
    assert shapes.subtracted("s", 2) is None
    for s in range(1, 40):
        assert eval(str(quotient), {}, {"s": s}) == 1 + (s - 1) // 4


def test_choices() -> None:
    where = ELEMENTWISE["Where"]
    assert (where(True, "n", 1), where(False, "n", 1)) == ("n", 1)
    assert (where(None, "n", "n"), where(None, "n", 1), where("n", 1, 2)) == ("n", None, None)
    assert ELEMENTWISE["Neg"](3) == -3
    assert ELEMENTWISE["Neg"]("n") is None
    assert ELEMENTWISE["Max"](-1, "n", 0) == "n"


def test_numbers_that_may_wrap_are_unknown() -> None:
    assert bounded(2**31 - 1) == 2**31 - 1
    assert bounded(2**31) is None
    assert ELEMENTWISE["Mul"](2**20, 2**20) is None


def test_broadcast() -> None:
    assert broadcast([("n", 1, 4), (3, 1)]) == ("n", 3, 4)
    assert broadcast([("n", "m"), ("n", 5)]) == ("n", 5)  # m is 1 or 5
    assert broadcast([("n",), ("m",)]) == (None,)
    assert broadcast([("n",), (None,)]) == (None,)
    shapes = [(2, 1, 4), (3, 1), (1,)]
    assert broadcast(shapes) == np.broadcast_shapes(*shapes)
