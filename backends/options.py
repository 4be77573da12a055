"""Options of a target, from a dictionary or from "name=value", checked against its dataclass."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any, TypeVar

from flatfold.errors import InputError, UnknownName

Options = TypeVar("Options")

_SWITCH = {"true": True, "false": False}
_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


def parse_options(kind: type[Options], options: Mapping[str, object], target: str) -> Options:
    """An instance of `kind`, a dataclass with a default for each field, from options by name.

    Raises UnknownName, with similar names, for an unknown option, and InputError for a value whose
    type is not that of the default; an int is accepted for a float.
    """
    defaults = _defaults(kind)
    for name, value in options.items():
        if name not in defaults:
            raise UnknownName(f"{target} option", name, defaults)
        expected = type(defaults[name])
        accepted = (int, float) if expected is float else (expected,)
        if type(value) not in accepted:  # not isinstance: a bool is an int, but not a number
            raise InputError(
                f"option {name!r}: expected {expected.__name__}, found {value!r}",
                where=f"target {target}",
                hint=f"the default is {defaults[name]!r}",
            )
    return kind(**options)


def read_options(kind: type[Any], written: Iterable[str], target: str) -> dict[str, object]:
    """The options in texts "name=value", each converted to the type of its default.

    Raises UnknownName, with similar names, for an unknown option, and InputError for a value that
    cannot be converted.
    """
    defaults, options = _defaults(kind), dict[str, object]()
    for text in written:
        name, equals, value = text.partition("=")
        if not equals:
            raise InputError(f"expected an option as name=value, found {text!r}")
        if name not in defaults:
            raise UnknownName(f"{target} option", name, defaults)
        expected = type(defaults[name])
        try:
            options[name] = _SWITCH[value.lower()] if expected is bool else expected(value)
        except (KeyError, ValueError) as error:
            raise InputError(
                f"option {name!r}: expected {_WORDS[expected]}, found {value!r}",
                where=f"target {target}",
                hint=f"the default is {defaults[name]!r}",
            ) from error
    return options


def _defaults(kind: type[Any]) -> dict[str, Any]:
    return {field.name: field.default for field in fields(kind)}
