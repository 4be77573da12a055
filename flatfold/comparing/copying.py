"""A large copy in memory, as something that runs: what bounds a layer that only moves data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

LEAST, MOST = 2**28, 2**30  # bytes
BEYOND = 4  # times the last-level cache, of which nothing useful is then left in it
_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}


class Copying:
    """Copies `size` bytes from one place to another, in as many threads; a worker's subject.

    Its feeds are of no account, and it has no outputs.
    """

    precision, layers = "", None

    def __init__(self, threads: int) -> None:
        count = size() // 8
        # Written once here: memory that never was written has no place of its own yet.
        self.source, self.target = np.ones(count), np.full(count, 2.0)
        self.pool = ThreadPoolExecutor(threads)
        halves = (np.array_split(array, threads) for array in (self.target, self.source))
        self.parts = list(zip(*halves, strict=True))

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """Copies once."""
        self.bind(feeds)()
        return {}

    def bind(self, feeds: Mapping[str, Any]) -> Callable[[], object]:
        """A call that copies once."""
        return lambda: list(self.pool.map(lambda part: np.copyto(*part), self.parts))


def size() -> int:
    """Bytes that are copied in a run: much more than any cache holds."""
    return min(max(LEAST, BEYOND * last_level_cache()), MOST)


def last_level_cache() -> int:
    """Bytes of the largest cache of a core; 0 where the system does not tell."""
    found = [0]
    for path in _CACHES.glob("index*/size"):
        with suppress(OSError, ValueError):
            text = path.read_text(encoding="utf-8").strip()
            found.append(int(text.rstrip("KMG")) * _UNITS.get(text[-1:], 1))
    return max(found)
