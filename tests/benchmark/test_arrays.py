"""Arrays come back under the names that they had."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from flatfold.benchmark.measure import arrays


def test_names_of_any_kind(tmp_path: Path) -> None:
    names = ("z", "file", "arr_0", "../x/y.npy", "ü", "")
    given = {name: np.full((2, index), index, np.float16) for index, name in enumerate(names)}
    given["none"] = np.array(True)
    arrays.store(tmp_path / "a.npz", given)
    found = arrays.read(tmp_path / "a.npz")
    assert list(found) == list(given)
    for name, array in given.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype


def test_none_at_all(tmp_path: Path) -> None:
    arrays.store(tmp_path / "a.npz", {})
    assert arrays.read(tmp_path / "a.npz") == {}
