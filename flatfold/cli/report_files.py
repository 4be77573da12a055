"""Reports in files: read again, and saved as a page, as Markdown or as data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flatfold.errors import InputError

if TYPE_CHECKING:
    from flatfold.comparing.data import Report

Save = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FILE",
        help="Write a page (.html), Markdown (.md) or data (.json) there; may be repeated.",
    ),
]


def read(path: str) -> Report:
    """The report in a file. Raises InputError."""
    from flatfold.comparing.data import Report

    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise InputError(f"cannot read the report: {error}", where=path) from error
    try:
        return Report.from_json(text)
    except InputError as error:
        raise InputError(error.cause, where=path, hint=error.hint) from error


def check(places: Sequence[str] | None, count: int = 1) -> None:
    """Raises InputError or OutputError now rather than after minutes of measuring."""
    from flatfold.comparing.saving import check_place

    for place in places or ():
        check_place(place, count)


def save(reports: Sequence[Report], places: Sequence[str] | None) -> None:
    """Raises OutputError."""
    from flatfold.comparing import saving

    for place in places or ():
        saving.save(reports, place)
