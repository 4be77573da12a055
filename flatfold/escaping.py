"""Text that cannot act on a terminal: names inside a model file are its author's."""

from __future__ import annotations

import unicodedata

_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_LONGEST = 2000  # characters of a message: a name may be as long as its file


def clean(text: str) -> str:
    """`text` on one line, control and direction characters written as escapes."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        ascii(char)[1:-1] if unicodedata.category(char) in _UNSAFE else char for char in text
    )


def one_line(text: str) -> str:
    """The lines of `text` as one, cleaned, and with its middle left out where it is too long.

    A line end must not let a model's name look like another message of flatfold.
    """
    line = " ".join(clean(part.strip()) for part in text.splitlines())
    if len(line) > _LONGEST:
        line = f"{line[: _LONGEST // 2]} ... {line[-_LONGEST // 2 :]}"
    return line
