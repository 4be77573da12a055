"""No cache of engines, but for the tests that give a folder of theirs; and what hypothesis draws.

Hypothesis draws the same examples each time in `make test`, and others in `make fuzz`.

FLATFOLD_RANDOM=1 draws new ones. Under `fuzz`, pytest's --hypothesis-seed says which; no database,
or the examples that failed last would be among them.
"""

from __future__ import annotations

import gc
import os

import pytest
from hypothesis import settings

os.environ["FLATFOLD_CACHE"] = ""  # no test may touch, or be served from, the user's own cache

# Each worker of pytest-xdist has a core. Threads of OpenMP beside it would wait for one another in
# busy loops, which makes a convolution in float64 several times slower.
os.environ["OMP_NUM_THREADS"] = "1"

# torch and the engines leave some million objects that live as long as the process. To walk them
# again and again is a fifth of the time of an export.
gc.set_threshold(50_000, 20, 50)

settings.register_profile("fixed", derandomize=True, deadline=None)
settings.register_profile("random", deadline=None, print_blob=True)
settings.register_profile("fuzz", deadline=None, database=None)
settings.load_profile("random" if os.environ.get("FLATFOLD_RANDOM") else "fixed")


def pytest_runtest_teardown(item: pytest.Item) -> None:
    """Free the weights of a large network, which a graph holds in a cycle, before the next one."""
    if item.get_closest_marker("slow") is not None:
        gc.collect()
