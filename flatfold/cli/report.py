"""flatfold report: shows reports of flatfold compare again, and saves them as a page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flatfold.cli import options
from flatfold.cli.console import out
from flatfold.errors import InputError

if TYPE_CHECKING:
    from flatfold.benchmark.report import Report


Save = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FILE",
        help="Write a page (.html), Markdown (.md) or data (.json) there; may be repeated.",
    ),
]


def read_report(path: str) -> Report:
    """The report in a file. Raises InputError."""
    from flatfold.benchmark.report import Report

    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise InputError(f"cannot read the report: {error}", where=path) from error
    try:
        return Report.from_json(text)
    except InputError as error:
        raise InputError(error.cause, where=path, hint=error.hint) from error


def check_places(places: Sequence[str] | None, count: int = 1) -> None:
    """Checks that the reports can be written there. Raises InputError or OutputError."""
    from flatfold.benchmark.views.files import check_place

    for place in places or ():
        check_place(place, count)


def save_reports(reports: Sequence[Report], places: Sequence[str] | None) -> None:
    """Writes the reports to each file. Raises OutputError."""
    from flatfold.benchmark.views import files

    for place in places or ():
        files.save(reports, place)


Files = Annotated[
    list[str],
    typer.Argument(metavar="FILE.json", help="Written by `flatfold compare --save` or `--json`."),
]


def report(reports: Files, save: Save = None, debug: options.Debug = False) -> None:
    """Show reports of flatfold compare again, and save them as one page."""
    from flatfold.cli.report_table import show

    check_places(save, len(reports))
    contents = [read_report(path) for path in reports]
    save_reports(contents, save)
    for content in contents:
        show(content, out())
