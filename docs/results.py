"""Writes the tables of docs/results.md from reports of `flatfold compare`.

python -m docs.results REPORT.json... keeps what stands above the mark in docs/results.md.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from flatfold.comparing.data import Report
from flatfold.comparing.markdown import markdown
from flatfold.errors import InputError

PAGE = Path(__file__).with_name("results.md")
MARK = "<!-- Written by python -m docs.results from here on. -->\n"
ALIKE = ("processor", "system", "threads", "affinity", "versions")  # of the environment


def joined(reports: Sequence[Report]) -> Report:
    """The models of all, which were measured in the same way on the same machine."""
    first, last = reports[0], reports[-1]
    for report in reports:
        for name in ALIKE:
            if report.environment[name] != first.environment[name]:
                raise InputError(f"the reports differ in {name}")
        if report.options != first.options:
            raise InputError("the reports differ in their options")
    models = tuple(model for report in reports for model in report.models)
    command = first.environment["command"].replace(first.models[0].model, "MODEL")
    environment = {**first.environment, "after": last.environment["after"], "command": command}
    return replace(first, models=models, environment=environment)


def main(paths: Sequence[str]) -> None:
    found = joined([Report.from_json(Path(path).read_text("utf-8")) for path in paths])
    head, tables = PAGE.read_text("utf-8"), markdown([found])
    PAGE.write_text(head.partition(MARK)[0] + MARK + tables.partition("\n\n")[2], "utf-8")
    print(f"docs/{PAGE.name}: {len(found.models)} models")


if __name__ == "__main__":
    main(sys.argv[1:])
