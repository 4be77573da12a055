"""Field arithmetic compared with Python's integers."""

from __future__ import annotations

import numpy as np
import pytest

from flatfold.proof.finite_field import field
from flatfold.proof.finite_field.field import PRIME


def elements(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, PRIME, shape)


def exactly(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.array((a.astype(object) @ b.astype(object)) % PRIME, dtype=np.int64)


@pytest.mark.parametrize("shapes", [((3, 5), (5, 4)), ((2, 5000), (5000, 3)), ((9, 2049), (2049,))])
def test_products_of_matrices_are_exact(shapes):
    a, b = elements(*shapes[0]), elements(*shapes[1], seed=1)
    np.testing.assert_array_equal(field.matmul(a, b), exactly(a, b))


def test_the_largest_elements_do_not_overflow():
    a = np.full((2, 2 * field.MOST_TERMS + 1), PRIME - 1)
    np.testing.assert_array_equal(field.matmul(a, a.T), exactly(a, a.T))


def test_ring_operations():
    a, b = elements(1000), elements(1000, seed=1)
    for ours, theirs in (
        (field.add(a, b), a.astype(object) + b),
        (field.subtract(a, b), a.astype(object) - b),
        (field.multiply(a, b), a.astype(object) * b),
        (field.negative(a), -a.astype(object)),
        (field.power(a, 7), a.astype(object) ** 7),
    ):
        np.testing.assert_array_equal(ours, theirs % PRIME)
    assert np.all(field.multiply(field.inverse(a + (a == 0)), a + (a == 0)) == 1)


def test_simple_numbers_keep_what_they_are():
    numbers = np.array([0.0, -0.0, 1.0, -1.0, 0.5, 0.75, 255.0, -2.0, 2.0**-40])
    found = field.image(numbers, 5)
    scaled = [0, 0, 1, -1, pow(2, -1, PRIME), 3 * pow(4, -1, PRIME), 255, -2, pow(2, -40, PRIME)]
    assert found.tolist() == [n % PRIME for n in scaled]
    for n in (3, 9, 49, 12544):
        assert field.multiply(field.image(np.array([1 / n]), 5), np.int64(n)) == [1]
        assert field.multiply(field.image(np.array([-1 / n]), 5), np.int64(n)) == [PRIME - 1]


def test_any_other_number_is_drawn_anew_with_each_key():
    numbers = np.random.default_rng(0).standard_normal(10_000)
    one, two = field.image(numbers, 1), field.image(numbers, 2)
    np.testing.assert_array_equal(one, field.image(numbers, 1))
    np.testing.assert_array_equal(field.image(-numbers, 1), field.negative(one))
    assert np.all(one != two)
    assert len(np.unique(one)) > 9_990
    assert abs(one.mean() / PRIME - 0.5) < 0.02
    assert field.add(one[:1], one[1:2]) != field.image(numbers[:1] + numbers[1:2], 1)


def test_numbers_without_a_value_have_an_element_too():
    found = field.image(np.array([np.inf, -np.inf, np.nan]), 0)
    assert np.all((found > 0) & (found < PRIME))
    assert found[0] == PRIME - found[1]
