"""Reports as files; the suffix is the format, and a file is written completely or not at all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path

from flatfold.benchmark.report import Report
from flatfold.errors import InputError, OutputError
from flatfold.system.atomic import atomic_files, os_errors_as_ours


def save(reports: Sequence[Report], path: str | PathLike[str]) -> None:
    """Writes one report, or several as one page. Raises InputError and OutputError."""
    place = Path(path)
    check_place(place, len(reports))
    write(place, FORMS[place.suffix.lower()](reports))


def check_place(path: str | PathLike[str], count: int = 1) -> None:
    """Raises those errors of `save` that need no report."""
    place = Path(path)
    form = place.suffix.lower()
    if form not in FORMS:
        raise InputError(
            f"expected a file that ends in {', '.join(FORMS)}, found {place.name!r}",
            where=str(path),
            hint="a page for people, a page for a repository, or data to compare with later",
        )
    if form == ".json" and count > 1:
        raise InputError(
            f"a .json file holds one report, and these are {count}",
            where=str(path),
            hint="save them as .html or .md",
        )
    check_writable(place)


def check_writable(path: Path) -> None:
    """Raises OutputError, before minutes of measuring, if there is no such folder."""
    if not path.resolve().parent.is_dir() or path.is_dir():
        raise OutputError(
            "expected a file in a folder that exists, found none",
            where=str(path),
            hint="make the folder first",
        )


def write(path: Path, text: str) -> None:
    """Writes the file. Raises OutputError, and then the file is unchanged."""
    with (
        os_errors_as_ours(path, "file that you may write"),
        atomic_files(path.resolve().parent) as staging,
    ):
        (staging / path.name).write_text(text, encoding="utf-8")


def _html(reports: Sequence[Report]) -> str:
    from flatfold.benchmark.html.page import page

    return page(reports)


def _markdown(reports: Sequence[Report]) -> str:
    from flatfold.benchmark.views.markdown import markdown

    return markdown(reports)


def _json(reports: Sequence[Report]) -> str:
    return f"{reports[0].to_json()}\n"


FORMS: dict[str, Callable[[Sequence[Report]], str]] = {
    ".html": _html,
    ".md": _markdown,
    ".json": _json,
}
