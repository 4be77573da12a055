"""Arrays by name in a file. The names may be any text, as they come from models."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Arrays = dict[str, npt.NDArray[Any]]


def store(path: str | os.PathLike[str], arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Writes `path`, whose name ends in .npz."""
    np.savez(path, np.array(list(arrays), dtype=np.str_), *arrays.values())


def read(path: str | os.PathLike[str]) -> Arrays:
    """The arrays that `store` wrote, in the same order."""
    with np.load(path, allow_pickle=False) as content:
        names = [str(name) for name in content["arr_0"]]
        return {name: content[f"arr_{index}"] for index, name in enumerate(names, 1)}
