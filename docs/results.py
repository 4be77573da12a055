"""Writes the tables of docs/results.md and of README.md from reports of `flatfold compare`.

python -m docs.results REPORT.json... keeps what stands around the marks.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from flatfold.comparing import view
from flatfold.comparing.data import ModelReport, Report
from flatfold.comparing.markdown import escape, markdown, table

ROOT = Path(__file__).parents[1]
PAGE, README = ROOT / "docs" / "results.md", ROOT / "README.md"
BEGIN = "<!-- Written by python -m docs.results from here -->\n"
END = "<!-- to here. -->\n"


def details(reports: Sequence[Report]) -> str:
    """Every row of every model, without the title."""
    _, _, text = markdown(reports).partition("\n")
    return f"{text}\n"


def overview(reports: Sequence[Report]) -> str:
    """A line a model: how long flatfold takes beside the training graph, on each target."""
    models = [model for report in reports for model in report.models]
    targets = dict.fromkeys(found.target for m in models for found in view.headlines(m))
    rows = ([escape(m.model), *(_cell(m, target) for target in targets)] for m in models)
    return f"\n{table(('model', *targets), rows)}\n\n"


def _cell(model: ModelReport, target: str) -> str:
    found = next((found for found in view.headlines(model) if found.target == target), None)
    if found is None or found.pair is None:
        return "" if found is None else found.verdict
    return f"{view.times(found.pair.ratio)} {found.verdict}"


def write(path: Path, text: str) -> None:
    """`text` between the marks."""
    before, _, rest = path.read_text("utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    path.write_text(f"{before}{BEGIN}{text}{END}{after}", "utf-8")
    print(path.relative_to(ROOT))


def main(paths: Sequence[str]) -> None:
    reports = [Report.from_json(Path(path).read_text("utf-8")) for path in paths]
    write(PAGE, details(reports))
    write(README, overview(reports))


if __name__ == "__main__":
    main(sys.argv[1:])
