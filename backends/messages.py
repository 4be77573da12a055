"""What an SDK has to say, cut to what is worth showing."""

from __future__ import annotations

_LONGEST = 600  # characters


def tail(message: object, longest: int = _LONGEST) -> str:
    """The end of a message, where its cause is, on one line."""
    return " ".join(str(message).split())[-longest:]
