"""Impulse responses name the weight in which two functions differ."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from flatfold.proof.interpreter.convolution import convolve
from flatfold.proof.interpreter.pair import Pair
from flatfold.proof.reduction.impulse import Window, WrongWeight, compare_responses

BOUND = 1e-6


def layer(
    weight: np.ndarray, bias: np.ndarray, stride: int = 1, pads: tuple[int, ...] = (1, 1, 1, 1)
) -> Callable[[np.ndarray], Pair]:
    def run(x: np.ndarray) -> Pair:
        how = (stride, stride), (1, 1), pads, 1
        column = bias.reshape(-1, 1, 1)
        y = convolve(x, weight, *how) + column
        return Pair(y, convolve(np.abs(x), np.abs(weight), *how) + np.abs(column))

    return run


def drawn(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((5, 4, 3, 3)), rng.standard_normal(5)


def found(stride: int = 1, kernel: bool = True, **changes: np.ndarray) -> WrongWeight | None:
    weight, bias = drawn()
    parts = {"weight": weight, "bias": bias}
    sides = [layer(**p, stride=stride) for p in (parts, parts | changes)]
    window = Window((stride, stride), (2, 2), *(((1, 1), (1, 1)) if kernel else ()))
    return compare_responses(*sides, (4, 11, 10), window, BOUND)


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("tap", [(0, 0), (0, 2), (1, 1), (2, 1)])
def test_one_wrong_weight_is_named(stride: int, tap: tuple[int, int]) -> None:
    weight = drawn()[0].copy()
    at = (3, 1, *tap)
    expected = weight[at]
    weight[at] += 0.25
    finding = found(stride, weight=weight)
    assert finding is not None
    assert (finding.output, finding.input, finding.tap) == (3, 1, tap)
    assert finding.expected == pytest.approx(expected)
    assert finding.found == pytest.approx(expected + 0.25)
    assert finding.others == 0
    assert str(finding).startswith(f"output channel 3, input channel 1, tap {tap}: expected")


def test_without_a_kernel_the_offset_is_named() -> None:
    weight = drawn()[0].copy()
    weight[3, 1, 0, 2] = 0
    finding = found(kernel=False, weight=weight)
    assert finding is not None and finding.is_offset
    assert finding.tap == (-1, 1)


def test_a_wrong_bias_is_named() -> None:
    bias = drawn()[1].copy()
    bias[[2, 4]] += (1e-3, 1e-1)
    finding = found(bias=bias)
    assert finding is not None
    assert (finding.output, finding.input, finding.others) == (4, None, 1)
    assert str(finding).startswith("bias of output channel 4: expected")


def test_how_many_more_are_wrong_is_counted_once_each() -> None:
    finding = found(2, weight=drawn(1)[0])
    assert finding is not None
    assert finding.others == 5 * 4 * 9 - 1


def test_what_shows_at_the_border_only_is_found_there() -> None:
    """The right kernel, where the other side pads with what is at the border."""
    weight, bias = drawn()
    inside = layer(weight, bias, pads=(0, 0, 0, 0))

    def replicated(x: np.ndarray) -> Pair:
        return inside(np.pad(x, [(0, 0), (0, 0), (1, 1), (1, 1)], mode="edge"))

    window = Window((1, 1), (2, 2), (1, 1), (1, 1))
    finding = compare_responses(layer(weight, bias), replicated, (4, 9, 8), window, BOUND)
    assert finding is not None


def test_rounding_is_no_finding() -> None:
    weight = drawn()[0] * (1 + 1e-8)
    assert found(weight=weight) is None
