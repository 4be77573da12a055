"""Run the backend test suite of ONNX with flatfold in front of ONNX Runtime, and without it.

tests/conformance/between.py says what "between layers" is.

    make conformance                          all cases; docs/conformance.md says how to read it
    python -m tests.conformance --match conv  those with "conv" in their name

Ends with 1 where a case that passes without flatfold does not pass with it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.progress import track

from tests.conformance.pool import CRASH, HANG, run_all
from tests.conformance.suite import (
    BETWEEN,
    ERROR,
    PASS,
    PLAIN,
    THROUGH,
    WRONG,
    Outcome,
    Suite,
)

LABELS = {
    PLAIN: "onnxruntime",
    THROUGH: "flatfold, then onnxruntime",
    BETWEEN: "the same, between layers",
}
VERDICTS = (PASS, ERROR, WRONG, CRASH, HANG)
FIELDS = {
    "models that flatfold read": "read",
    "with other operators afterwards": "changed",
    "with a rewrite applied": "rewritten",
    "of an opset before 7, left alone": "old",
}
MOVES = (
    ("left the pass set", PLAIN, THROUGH),
    ("joined the pass set", THROUGH, PLAIN),
    ("left the pass set between layers", PLAIN, BETWEEN),
)
Outcomes = dict[str, dict[str, Outcome]]


def main() -> int:
    parser = argparse.ArgumentParser(prog="conformance", description=__doc__.partition("\n")[0])
    parser.add_argument("--match", default="", help="regular expression of names; default all")
    parser.add_argument("--draws", type=int, default=3, help="times that layers are drawn")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seconds", type=float, default=60.0, help="limit for one case")
    parser.add_argument("--json", type=Path, help="file for the outcome of every case")
    options = parser.parse_args()
    suite = Suite(options.match, options.draws)
    if not suite.names:
        parser.error(f"no case has {options.match!r} in its name")
    found = outcomes(suite, options.jobs, options.seconds)
    if options.json:
        options.json.write_text(json.dumps(record(found), indent=1), "utf-8")
    print("\n".join(report(found)))
    return 1 if any(moved(found, PLAIN, backend) for backend in (THROUGH, BETWEEN)) else 0


def outcomes(suite: Suite, jobs: int, seconds: float) -> Outcomes:
    """By backend and name."""
    tasks = [(name, backend) for name in suite.names for backend in LABELS]
    found: Outcomes = {backend: {} for backend in LABELS}
    done = run_all(tasks, suite.run, jobs=jobs, seconds=seconds)
    console = Console(file=sys.stderr)
    for (name, backend), result in track(done, "running", total=len(tasks), console=console):
        found[backend][name] = Outcome(result) if isinstance(result, str) else result
    return {backend: dict(sorted(cases.items())) for backend, cases in found.items()}


def moved(found: Outcomes, passes: str, fails: str) -> list[str]:
    """The cases that pass on one backend and not on the other."""
    return [
        name
        for name, outcome in found[passes].items()
        if outcome.verdict == PASS and found[fails][name].verdict != PASS
    ]


def report(found: Outcomes) -> list[str]:
    """What is printed."""
    lines = [
        f"ONNX backend suite of onnx {version('onnx')}, on onnxruntime {version('onnxruntime')}: "
        f"{len(found[PLAIN])} cases for the CPU",
        "",
        f"{'':28}" + "".join(f"{verdict:>8}" for verdict in VERDICTS),
    ]
    for backend, label in LABELS.items():
        counts = Counter(outcome.verdict for outcome in found[backend].values())
        lines.append(f"{label:28}" + "".join(f"{counts[verdict]:8}" for verdict in VERDICTS))
    lines += ["", f"{'':36}{'alone':>14}{'between layers':>16}"]
    for label, field in FIELDS.items():
        sums = [sum(getattr(o, field) for o in found[run].values()) for run in (THROUGH, BETWEEN)]
        lines.append(f"{label:36}{sums[0]:14}{sums[1]:16}")
    for label, passes, fails in MOVES:
        names = moved(found, passes, fails)
        lines += ["", f"{label}: {len(names)}"]
        lines += [
            f"  {name}: {found[run][name].verdict} {found[run][name].detail}"
            for name in names
            for run in ({passes, fails} - {PLAIN})
        ]
    return lines


def record(found: Outcomes) -> dict[str, dict[str, object]]:
    return {
        backend: {name: asdict(outcome) for name, outcome in cases.items()}
        for backend, cases in found.items()
    }


if __name__ == "__main__":
    sys.exit(main())
