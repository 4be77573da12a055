"""Options given by name become one frozen dataclass per backend."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

from flatfold.errors import InputError, UnknownName

Options = TypeVar("Options")


def parse_options(kind: type[Options], options: Mapping[str, object], target: str) -> Options:
    """A `kind` (a dataclass whose fields all have a default) from options given by name.

    Raises UnknownName, with near names, for an option that does not exist, and InputError for a
    value that is not of the type of the default; an int will do for a float.
    """
    defaults: dict[str, Any] = {field.name: field.default for field in fields(kind)}  # type: ignore[arg-type]
    for name, value in options.items():
        if name not in defaults:
            raise UnknownName(f"{target} option", name, defaults)
        expected = type(defaults[name])
        fitting = (int, float) if expected is float else (expected,)
        if type(value) not in fitting:  # a bool is an int, but no number of threads
            raise InputError(
                f"option {name!r}: expected {expected.__name__}, found {value!r}",
                where=f"target {target}",
                hint=f"the default is {defaults[name]!r}",
            )
    return kind(**options)
