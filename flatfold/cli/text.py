"""Text for a terminal: ages and lists that people read."""

from __future__ import annotations

from collections.abc import Sequence

from flatfold.escaping import clean

_AGES = ((86400, "d"), (3600, "h"), (60, "min"))


def age(seconds: float) -> str:
    """In the largest unit of which there are two: 5400 -> "90 min"."""
    for size, unit in _AGES:
        if seconds >= 2 * size:
            return f"{seconds // size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def listing(names: Sequence[str], shown: int) -> str:
    """The first `shown` names, and how many more there are."""
    text = ", ".join(clean(name) for name in names[:shown])
    more = len(names) - shown
    return f"{text} and {more} more" if more > 0 else text
