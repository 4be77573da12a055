"""Ranges, the codes that they lead to, and weights as codes."""

from __future__ import annotations

import numpy as np
import pytest

from flatfold.passes.quantization.record import Codes, Range


@pytest.mark.parametrize(
    ("low", "high", "codes", "scale", "zero"),
    [
        (0.0, 2.55, "uint8", 0.01, 0),  # behind a Relu the zero point is 0
        (-1.0, 1.55, "uint8", 0.01, 100),
        (-2.55, 0.0, "uint8", 0.01, 255),
        (-1.27, 0.5, "int8", 0.01, 0),
        (-0.5, 1.27, "int8", 0.01, 0),
    ],
)
def test_a_range_leads_to_a_scale_and_a_zero_point(low, high, codes, scale, zero) -> None:
    found_scale, found_zero = Range(low, high).grid(codes)
    assert found_scale == np.float32(scale) and found_scale.dtype == np.float32
    assert found_zero == zero


@pytest.mark.parametrize("codes", ["uint8", "int8"])
def test_a_value_that_is_always_0_has_a_scale(codes: str) -> None:
    scale, zero = Range(0.0, 0.0).grid(codes)
    assert scale > 0 and np.isfinite(1 / scale) and zero == 0


def test_a_range_without_0_is_refused() -> None:
    with pytest.raises(ValueError, match="low <= 0 <= high"):
        Range(1.0, 2.0)


@pytest.mark.parametrize("axis", [None, 0, 1])
def test_codes_stand_for_scale_times_code(axis: int | None) -> None:
    rng = np.random.default_rng(0)
    codes = rng.integers(-127, 128, (3, 4, 2)).astype(np.int8)
    scale = rng.random(() if axis is None else codes.shape[axis]).astype(np.float32)
    weight = Codes(codes, scale, axis).weight()
    assert weight.dtype == np.float32
    for place in np.ndindex(codes.shape):
        one = scale if axis is None else scale[place[axis]]
        assert weight[place] == np.float32(one * np.float32(codes[place]))
