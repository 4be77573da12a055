"""Writes the tables of docs/results.md from reports of `flatfold compare`.

python -m docs.results REPORT.json... keeps what stands above the mark in docs/results.md.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from flatfold.comparing.data import Report
from flatfold.comparing.markdown import markdown

PAGE = Path(__file__).with_name("results.md")
MARK = "<!-- Written by python -m docs.results from here on. -->\n"


def main(paths: Sequence[str]) -> None:
    reports = [Report.from_json(Path(path).read_text("utf-8")) for path in paths]
    _, _, tables = markdown(reports).partition("\n")  # without its title
    head, _, _ = PAGE.read_text("utf-8").partition(MARK)
    PAGE.write_text(head + MARK + tables, "utf-8")
    print(f"docs/{PAGE.name}: {len(reports)} reports")


if __name__ == "__main__":
    main(sys.argv[1:])
