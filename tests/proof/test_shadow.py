"""Shadowed arrays do what arrays do, to their values and to their shadows, and lose neither."""

from __future__ import annotations

import numpy as np
import pytest

from flatfold.proof.finite_field.field import PRIME
from flatfold.proof.finite_field.shadow import ShadowedArray, shadowed, using_key

A = np.arange(1.0, 25.0).reshape(2, 3, 4)
B = np.arange(24.0, 0.0, -1.0).reshape(2, 3, 4)

FUNCTIONS = {
    "sum of axes": lambda a, b: a.sum(axis=(0, 2)),
    "mean": lambda a, b: (a * 12).mean(axis=2, keepdims=True),
    "arithmetic": lambda a, b: -(a + b) * 3 - b * a + 2 - a,
    "matmul": lambda a, b: a @ b.swapaxes(1, 2),
    "einsum of two": lambda a, b: np.einsum("nck,ck->nc", a, b[0]),
    "diagonal": lambda a, b: np.einsum("ii->i", a[:, :2, 0]),
    "pad": lambda a, b: np.pad(a, [(0, 0), (1, 0), (0, 2)]),
    "stack": lambda a, b: np.stack([a, b, A], axis=1),
    "concatenate": lambda a, b: np.concatenate([a, b]),
    "where": lambda a, b: np.where(a > b, a, 0),
    "clip": lambda a, b: np.clip(a, 3, 9),
    "largest": lambda a, b: b.max((0, 2)),
    "larger": lambda a, b: np.maximum(a, b),
    "windows": lambda a, b: np.lib.stride_tricks.sliding_window_view(a, 2, axis=-1),
    "moveaxis": lambda a, b: np.moveaxis(a, 0, -1).reshape(-1),
    "transpose": lambda a, b: a.transpose(2, 0, 1)[::-1],
    "repeat": lambda a, b: np.repeat(a[0], [1, 2, 1], axis=0),
    "take": lambda a, b: np.take_along_axis(a, np.array([[[0]], [[2]]]), axis=1),
    "power": lambda a, b: a**2,
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_both_parts_are_computed(name):
    """Whole numbers are their own shadows, so the two must come out the same."""
    found = FUNCTIONS[name](shadowed(A), shadowed(B))
    wanted = FUNCTIONS[name](A, B)
    np.testing.assert_array_equal(found.value, wanted)
    np.testing.assert_array_equal(found.shadow, wanted.astype(np.int64) % PRIME)


def test_division_is_by_the_inverse():
    third = shadowed(np.ones(2)) / shadowed(np.full(2, 3.0))
    np.testing.assert_array_equal((third * 3).shadow, 1)
    np.testing.assert_array_equal(third.shadow, shadowed(np.full(2, 1 / 3)).shadow)


def test_writing_through_a_view():
    total = shadowed(np.zeros((2, 2, 3)))
    total[0, 1] += shadowed(np.array([1.0, 2.0, 3.0]))
    blocks = np.einsum("iij->ij", total)
    blocks += 5
    np.add.at(total, ([0, 0], [1, 1]), shadowed(np.ones((2, 3))))
    np.testing.assert_array_equal(total.value, [[[5] * 3, [3, 4, 5]], [[0] * 3, [5] * 3]])
    np.testing.assert_array_equal(total.shadow, total.value)


def test_numbers_decide_and_shadows_follow():
    x = ShadowedArray(np.array([2.0, -1.0, 3.0]), np.array([7, 8, 9]))
    assert np.maximum(x, 0).shadow.tolist() == [7, 0, 9]
    assert x.max().shadow == 9
    assert (x > 0).tolist() == [True, False, True]
    assert np.any(x < 0)


def test_other_functions_are_unknown_but_functions():
    x = ShadowedArray(np.array([2.0, 3.0, 5.0]), np.array([7, 7, 9]))
    for function in (np.sqrt, np.exp, np.tanh):
        shadow = function(x).shadow
        assert shadow[0] == shadow[1] != shadow[2]
    other = np.sqrt(x).shadow[0]
    assert other != np.exp(x).shadow[0]
    with using_key(1):
        assert np.sqrt(x).shadow[0] != other


def test_a_copy_shares_nothing():
    single = shadowed(A.astype(np.float32))
    double = single.astype(np.float64, copy=False)
    double[...] = 0
    assert np.all(single.shadow != 0)


def test_a_shadow_is_not_lost_unseen():
    x = shadowed(A)
    with pytest.raises(ValueError):
        np.asarray(x)
    with pytest.raises(ValueError):
        np.zeros(A.shape)[...] = x
    with pytest.raises(TypeError):
        float(x[0, 0, 0])
    with pytest.raises(TypeError):
        np.linalg.norm(x)
    plain = np.zeros(A.shape)
    with pytest.raises((TypeError, ValueError)):
        plain += x
