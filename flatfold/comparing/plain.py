"""Numbers that JSON does not have, on their way into a file and out of it."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import Any

LARGEST = 1e30  # of any number in a report but the error of what is wrong


def finite(value: Any) -> Any:
    """None for what JSON does not have."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def with_infinities(content: Any) -> Any:
    """`content` with the numbers back that JSON does not have: those of an equivalence."""
    if isinstance(content, Mapping):
        return {
            name: {n: math.inf if v is None else v for n, v in value.items()}
            if name == "equivalence" and isinstance(value, Mapping)
            else with_infinities(value)
            for name, value in content.items()
        }
    if isinstance(content, list | tuple):
        return [with_infinities(value) for value in content]
    return content


def is_sound(content: Any, largest: float = LARGEST) -> bool:
    """Whether numbers can be reckoned with: JSON has NaN for some, and integers of any length."""
    if isinstance(content, Mapping):
        return all(
            is_sound(value, sys.float_info.max if name == "equivalence" else largest)
            for name, value in content.items()
        )
    if isinstance(content, list | tuple):
        return all(is_sound(value, largest) for value in content)
    return not isinstance(content, int | float) or abs(content) <= largest
