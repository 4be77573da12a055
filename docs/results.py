"""Writes the tables of docs/results.md and of README.md from the reports in docs/measured.

python -m docs.results [REPORT.json...] takes these in first; it keeps what stands around the marks.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from flatfold.benchmark.report import ModelReport, Report
from flatfold.benchmark.views import facts, sentences
from flatfold.benchmark.views.markdown import escape, markdown, table

ROOT = Path(__file__).parents[1]
PAGE, README = ROOT / "docs" / "results.md", ROOT / "README.md"
MEASURED = ROOT / "docs" / "measured"
BEGIN = "<!-- Written by python -m docs.results from here -->\n"
END = "<!-- to here. -->\n"


def take(path: Path) -> None:
    """Keeps a report, without what its command says of the folders of a machine."""
    report = Report.from_json(path.read_text("utf-8"))
    told = report.to_dict()
    told["environment"]["command"] = facts.command(report)
    text = json.dumps(told, separators=(",", ":"), allow_nan=False)
    (MEASURED / path.name).write_text(f"{text}\n", "utf-8")


def measured() -> list[Report]:
    """By the names of their files."""
    return [Report.from_json(path.read_text("utf-8")) for path in sorted(MEASURED.glob("*.json"))]


def details(reports: Sequence[Report]) -> str:
    """Every row of every model, without the title."""
    _, _, text = markdown(reports).partition("\n")
    return f"{text}\n"


def overview(reports: Sequence[Report]) -> str:
    """A line a model: the speed and the time ratio to the training graph on each target."""
    models = [model for report in reports for model in report.models]
    targets = dict.fromkeys(found.target for m in models for found in sentences.headlines(m))
    rows = ([escape(m.model), *(_cell(m, target) for target in targets)] for m in models)
    return f"\n{table(('model', *targets), rows)}\n\n"


def _cell(model: ModelReport, target: str) -> str:
    found = next((found for found in sentences.headlines(model) if found.target == target), None)
    if found is None or found.pair is None:
        return "" if found is None else found.verdict
    speed = sentences.speed(found.pair.ratio, found.pair.verdict)
    return f"{speed} ({sentences.times(found.pair.ratio)})"


def write(path: Path, text: str) -> None:
    """`text` between the marks."""
    before, _, rest = path.read_text("utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    path.write_text(f"{before}{BEGIN}{text}{END}{after}", "utf-8")
    print(path.relative_to(ROOT))


def main(paths: Sequence[str]) -> None:
    for path in paths:
        take(Path(path))
    reports = measured()
    write(PAGE, details(reports))
    write(README, overview(reports))


if __name__ == "__main__":
    main(sys.argv[1:])
