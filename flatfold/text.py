"""Names and numbers as text; names from a model file cannot act on the terminal."""

from __future__ import annotations

import math
import unicodedata

_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_LONGEST = 2000  # characters of a message: a name may be as long as its file
_SECONDS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"))
_PREFIXES = ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k"))


def clean(text: str) -> str:
    """`text` with control and direction characters escaped, so that it cannot act on a terminal.

    Names inside a model file come from its author and may hold such characters.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        ascii(char)[1:-1] if unicodedata.category(char) in _UNSAFE else char for char in text
    )


def one_line(text: str) -> str:
    """The lines of `text` joined to one, escaped, and shortened in the middle if too long.

    So a line end in the name of a model cannot make the rest look like a message of flatfold.
    """
    line = " ".join(clean(part.strip()) for part in text.splitlines())
    if len(line) > _LONGEST:
        line = f"{line[: _LONGEST // 2]} ... {line[-_LONGEST // 2 :]}"
    return line


def count(number: float | None) -> str:
    """Three digits and a prefix: 1523456 -> "1.52 M"."""
    if number is None:
        return "unknown"
    for size, prefix in _PREFIXES:
        if number >= size:
            return f"{digits(number / size)}{prefix}"
    return f"{number:.3g}" if isinstance(number, float) else str(number)


def quantity(number: float | None, unit: str) -> str:
    """Like `count`, with a unit: 1.5e9 and "B/s" -> "1.50 GB/s"."""
    text = count(number)
    if number is None:
        return text
    return f"{text}{unit}" if text[-1].isalpha() else f"{text} {unit}"


def duration(seconds: float, interval: tuple[float, float] | None = None) -> str:
    """Three digits and a unit, with its interval in the same unit: "12.3 ms [12.1, 12.6]"."""
    size, unit = time_unit(seconds)
    text = f"{digits(seconds / size)} {unit}"
    if interval is None:
        return text
    low, high = (digits(bound / size) for bound in interval)
    return f"{text} [{low}, {high}]"


def speed(time_ratio: float) -> str:
    """How a time ratio is said: 0.8 -> "1.25x faster", 1.25 -> "1.25x slower"."""
    if time_ratio < 1:
        return f"{digits(1 / time_ratio)}x faster"
    return f"{digits(time_ratio)}x slower"


def time_unit(seconds: float) -> tuple[float, str]:
    """The unit for a duration, "s", "ms" or "us", and its length in seconds."""
    return next((u for u in _SECONDS if seconds >= u[0]), _SECONDS[-1])


def change(before: float | None, after: float | None) -> str:
    """The relative change: 10, 9 -> "-10 %"; "" if nothing changed or a value is missing."""
    if not before or after is None or before == after:
        return ""
    return f"{100 * (after - before) / before:+.3g} %"


def digits(number: float) -> str:
    """Three significant digits, without an exponent."""
    if not math.isfinite(number) or number <= 0:
        return f"{number:g}"
    return f"{number:.{max(0, 2 - math.floor(math.log10(number)))}f}"
