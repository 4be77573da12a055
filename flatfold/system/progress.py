"""Progress: the function that long work calls with one line on what it does now."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str], None]


def silent(_: str) -> None:
    """Shows nothing."""
