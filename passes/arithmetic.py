"""What the weights of stencils are made of: float64, or numbers with more to them.

The proof runs this algebra on numbers of another kind (`flatfold.proof.twin`), which decide as the
floats do. Arrays that are made here, not read off the graph, have to be of that kind too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import numpy as np

A = TypeVar("A")
Lift = Callable[[Any], Any]

_LIFT: ContextVar[Lift | None] = ContextVar("lift", default=None)


def lifted(array: A) -> A:
    """The array, as the kind of numbers that is computed with."""
    lift = _LIFT.get()
    return array if lift is None else lift(array)


def zeros(shape: int | tuple[int, ...]) -> Any:
    """Zeros to add to."""
    return lifted(np.zeros(shape))


@contextmanager
def lifting(lift: Lift) -> Iterator[None]:
    """Compute with `lift(array)` in place of each array, within."""
    token = _LIFT.set(lift)
    try:
        yield
    finally:
        _LIFT.reset(token)
