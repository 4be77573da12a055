"""The original is run once for all variants, but twice, so that one that wavers is told."""

from __future__ import annotations

import numpy as np

from flatfold.benchmark.checks import _remembered


def test_a_question_is_asked_so_many_times() -> None:
    asked = []

    def reference(feeds):  # type: ignore[no-untyped-def]
        asked.append(feeds["x"].copy())
        return [np.float64(len(asked))]

    remembered = _remembered(reference, times=2)
    one, other = {"x": np.zeros(3)}, {"x": np.ones(3)}
    assert [remembered(one)[0] for _ in range(4)] == [1, 2, 2, 2]
    assert remembered(other)[0] == 3
    assert len(asked) == 3
