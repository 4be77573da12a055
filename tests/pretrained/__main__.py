"""Pretrained files of public packages through flatfold: none refused, none called different.

    make test-pretrained                    all of them; writes docs/pretrained.md
    python -m tests.pretrained --match ocr  those with "ocr" in their path; writes nothing

Ends with 1 where flatfold refuses a file that ONNX Runtime runs, calls its own result different, or
returns one with other outputs. What cannot be downloaded is skipped, and the reason printed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.pretrained.packages import Pretrained, pretrained
from tests.pretrained.page import RIGHT, Row, page

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/pretrained.md"
SECONDS = 300


def main() -> int:
    parser = argparse.ArgumentParser(prog="pretrained", description=__doc__.partition("\n")[0])
    parser.add_argument("--match", default="", help="part of the path; default all")
    parser.add_argument("--folder", type=Path, default=ROOT / "build/pretrained")
    options = parser.parse_args()
    rows = []
    for one in pretrained(options.folder, say):
        if options.match in str(one.path):
            rows.append(_tried(one, options.folder))
            row = rows[-1]
            say(f"{row.package}  {row.file}  {row.flatfold['verdict']}  {row.fault}".rstrip())
    if not rows:
        say("skipped: there is no file to test")
        return 0
    if not options.match:
        PAGE.write_text(page(rows))
    faults = sum(bool(row.fault) for row in rows)
    print(f"{len(rows) - faults} passed, {faults} failed")
    return int(faults > 0)


def say(line: str) -> None:
    print(line, flush=True)


def _tried(one: Pretrained, folder: Path) -> Row:
    place = folder / one.package.replace(" ", "-")
    with tempfile.TemporaryDirectory() as temporary:
        out = str(Path(temporary) / "out.onnx")
        answer = _said_by("flatfold", one.path, out)
        comparison = _said_by("compare", one.path, out if answer["verdict"] in RIGHT else one.path)
        simplified = _said_by("onnxsim", one.path, out)
    size = one.path.stat().st_size
    file = str(one.path.relative_to(place))
    return Row(one.package, Path(file).name, size, answer, comparison, simplified)


def _said_by(tool: str, path: Path, out: str) -> dict[str, Any]:
    """What the worker said. A worker that died or took too long is a verdict of flatfold's."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", "tests.pretrained.worker", tool, str(path), out],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
    except subprocess.TimeoutExpired:
        return {"verdict": "late", "fault": f"not done in {SECONDS} s"}
    for line in done.stdout.splitlines():
        if line.startswith("FACTS"):
            facts: dict[str, Any] = json.loads(line.removeprefix("FACTS"))
            return facts
    last = (done.stderr.strip().splitlines() or [""])[-1]
    return {"verdict": "died", "reason": last[:300], "fault": f"died: {last[:200]}"}


if __name__ == "__main__":
    sys.exit(main())
