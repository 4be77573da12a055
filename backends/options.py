"""Options given by name, or written as name=value, become one frozen dataclass per backend."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any, TypeVar

from flatfold.errors import InputError, UnknownName

Options = TypeVar("Options")


def parse_options(kind: type[Options], options: Mapping[str, object], target: str) -> Options:
    """A `kind` (a dataclass whose fields all have a default) from options given by name.

    Raises UnknownName, with near names, for an option that does not exist, and InputError for a
    value that is not of the type of the default; an int will do for a float.
    """
    defaults = _defaults(kind)
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


def read_options(kind: type[Any], written: Iterable[str], target: str) -> dict[str, object]:
    """Options written as "name=value", each as the type of its default.

    Raises UnknownName, with near names, and InputError for a value of another type.
    """
    defaults, found = _defaults(kind), dict[str, object]()
    for text in written:
        name, equals, value = text.partition("=")
        if not equals:
            raise InputError(f"expected an option as name=value, found {text!r}")
        if name not in defaults:
            raise UnknownName(f"{target} option", name, defaults)
        expected = type(defaults[name])
        try:
            found[name] = _SWITCH[value.lower()] if expected is bool else expected(value)
        except (KeyError, ValueError) as error:
            raise InputError(
                f"option {name!r}: expected {_WORDS[expected]}, found {value!r}",
                where=f"target {target}",
                hint=f"the default is {defaults[name]!r}",
            ) from error
    return found


_SWITCH = {"true": True, "false": False}
_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


def _defaults(kind: type[Any]) -> dict[str, Any]:
    return {field.name: field.default for field in fields(kind)}
