"""Text for a terminal: numbers that people read."""

from __future__ import annotations

import math
from collections.abc import Sequence

from flatfold.escaping import clean

_UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"))
_AGES = ((86400, "d"), (3600, "h"), (60, "min"))
_PREFIXES = ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k"))


def count(number: int | None) -> str:
    """Three digits and a prefix: 1523456 -> "1.52 M"."""
    if number is None:
        return "unknown"
    for size, prefix in _PREFIXES:
        if number >= size:
            return f"{_digits(number / size)}{prefix}"
    return str(number)


def duration(seconds: float, interval: tuple[float, float] | None = None) -> str:
    """Three digits and a unit, with its interval in the same unit: "12.3 ms [12.1, 12.6]"."""
    size, unit = next((u for u in _UNITS if seconds >= u[0]), _UNITS[-1])
    text = f"{_digits(seconds / size)} {unit}"
    if interval is None:
        return text
    low, high = (_digits(bound / size) for bound in interval)
    return f"{text} [{low}, {high}]"


def age(seconds: float) -> str:
    """In the largest unit of which there are two: 5400 -> "90 min"."""
    for size, unit in _AGES:
        if seconds >= 2 * size:
            return f"{seconds // size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def change(before: float | None, after: float | None) -> str:
    """The relative change: 10, 9 -> "-10 %"; empty where there is none to tell."""
    if not before or after is None or before == after:
        return ""
    return f"{100 * (after - before) / before:+.3g} %"


def listing(names: Sequence[str], shown: int) -> str:
    """The first `shown` names, and how many more there are."""
    text = ", ".join(clean(name) for name in names[:shown])
    more = len(names) - shown
    return f"{text} and {more} more" if more > 0 else text


def _digits(number: float) -> str:
    """Three significant digits, without an exponent."""
    if not math.isfinite(number) or number <= 0:
        return f"{number:g}"
    return f"{number:.{max(0, 2 - math.floor(math.log10(number)))}f}"
