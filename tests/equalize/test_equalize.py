"""Random networks keep every bit, and a network whose scales are wrong does not."""

from __future__ import annotations

from collections import Counter

import numpy as np

from flatfold.passes.scaling.constants import Constant
from tests.equalize.bits import outcome

COUNT = 150


def test_random_networks_keep_every_bit():
    counts = Counter(outcome(seed) for seed in range(COUNT))
    assert set(counts) <= {"equal", "unchanged"}
    assert counts["equal"] > 0.7 * COUNT  # of most, channels are scaled


def test_factors_that_are_no_powers_of_two_are_seen(monkeypatch):
    """By three times: exact in real numbers, and rounded otherwise in single precision."""
    right = Constant.scaled

    def wrong(self: Constant, exponents: np.ndarray) -> np.ndarray:
        thrice = 3.0 ** np.sign(self.shifts(exponents))
        return (right(self, exponents) * thrice).astype(self.array.dtype)

    monkeypatch.setattr(Constant, "scaled", wrong)
    counts = Counter(outcome(seed).partition(":")[0] for seed in range(20))
    assert counts["different"] > 5
