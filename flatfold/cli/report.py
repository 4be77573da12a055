"""flatfold report: what was measured before, shown again and saved as a page."""

from __future__ import annotations

from typing import Annotated

import typer

from flatfold.cli import options as given
from flatfold.cli import report_files as files
from flatfold.cli.streams import out

Files = Annotated[
    list[str],
    typer.Argument(metavar="FILE.json", help="Written by `flatfold compare --save` or `--json`."),
]


def report(reports: Files, save: files.Save = None, debug: given.Debug = False) -> None:
    """Show reports of flatfold compare again, and save them as one page."""
    from flatfold.cli.bars import show

    files.check(save, len(reports))
    found = [files.read(path) for path in reports]
    files.save(found, save)
    for one in found:
        show(one, out())
