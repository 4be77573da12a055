"""Inputs on which ONNX Runtime runs a model, found by trying sizes; flatfold's search has no part.

Sizes that the file declares are kept. An open one is drawn from those that networks for images,
sound and text take; the same symbol has the same size wherever it stands.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

Feeds = dict[str, npt.NDArray[Any]]

BATCHES = (1, 1, 1, 2)
CHANNELS = (3, 3, 3, 1, 4)
SIZES = (48, 16, 32, 64, 96, 128, 160, 192, 224, 256, 320, 416, 512, 640, 80, 100)
LENGTHS = (512, 576, 256, 16000, 1536, 64, 128, 1, 43844, 2048, 32)
WHOLE = (1, 16000, 8000, 2, 0, 64, 320)  # of an integer that says a rate, a size or a count
TYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(uint8)": np.uint8,
    "tensor(bool)": np.bool_,
}
TRIES, SECONDS, MOST = 400, 60.0, 1 << 22


def two_sizes(session: ort.InferenceSession, seed: int = 0) -> list[Feeds]:
    """Inputs of up to two sizes that the session runs on; one size where all of them are fixed."""
    found: list[Feeds] = []
    seen: set[str] = set()
    limit = time.monotonic() + SECONDS
    for feeds in _candidates(session, np.random.default_rng(seed)):
        key = repr([array.shape for array in feeds.values()])
        if key not in seen and runs(session, feeds):
            seen.add(key)
            found.append(feeds)
        if len(found) == 2 or time.monotonic() > limit:
            break
    return found


def runs(session: ort.InferenceSession, feeds: Feeds) -> bool:
    try:
        session.run(None, feeds)
    except Exception:
        return False
    return True


def _candidates(session: ort.InferenceSession, rng: np.random.Generator) -> Iterator[Feeds]:
    for number in range(TRIES):
        sizes: dict[str, int] = {}
        square = int(rng.choice(SIZES)) if number % 2 else 0
        feeds = {}
        for given in session.get_inputs():
            shape = [
                _size(dim, axis, given.shape, sizes, square, rng)
                for axis, dim in enumerate(given.shape)
            ]
            feeds[given.name] = _array(given.type, shape, rng)
        if sum(array.size for array in feeds.values()) <= MOST:
            yield feeds


def _size(
    dim: Any, axis: int, shape: list[Any], sizes: dict[str, int], square: int, rng: Any
) -> int:
    if isinstance(dim, int) and dim > 0:
        return dim
    if isinstance(dim, str) and dim in sizes:
        return sizes[dim]
    if axis == 0 and len(shape) > 1:
        size = rng.choice(BATCHES)
    elif axis == 1 and len(shape) == 4:
        size = rng.choice(CHANNELS)
    elif len(shape) == 4:
        size = square or rng.choice(SIZES)
    else:
        size = rng.choice(LENGTHS + SIZES + (1, 2, 16))
    if isinstance(dim, str):
        sizes[dim] = int(size)
    return int(size)


def _array(kind: str, shape: list[int], rng: np.random.Generator) -> npt.NDArray[Any]:
    dtype = TYPES[kind]
    if dtype == np.bool_:
        return rng.random(shape) < 0.5
    if np.issubdtype(dtype, np.integer):
        if len(shape) < 2:
            return np.full(shape, rng.choice(WHOLE)).astype(dtype)
        return rng.integers(0, 5, shape).astype(dtype)
    return np.asarray(rng.random(shape)).astype(dtype)
