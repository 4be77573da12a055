"""Rewrite a fixed set of graphs and compare each result with a recorded SHA-256.

    python -m tests.replay [--update] [--match TEXT] [--jobs N]

The set is every network of the zoo at the small size of its golden row, and the drawn graphs of
graphs.txt. Nothing is proved here: this tells whether a change of the code changed any result, to
the last bit of the last weight. Metadata is left out of the hash; it names the passes.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
from pathlib import Path

from tests.replay.results import Row, cases, result_of

EXPECTED = Path(__file__).with_name("expected.json")


def main() -> int:
    """Exit code 0 where every result is the recorded one (or was recorded just now), else 1."""
    parser = argparse.ArgumentParser(prog="python -m tests.replay", description=__doc__)
    parser.add_argument("--update", action="store_true", help="record the results of today")
    parser.add_argument("--match", default="", help="only names that contain this text")
    parser.add_argument("--jobs", type=int, default=multiprocessing.cpu_count())
    options = parser.parse_args()
    for library in ("OMP", "OPENBLAS"):  # the order in which a product is added up depends on it
        os.environ[f"{library}_NUM_THREADS"] = "1"
    expected = json.loads(EXPECTED.read_text("utf-8")) if EXPECTED.exists() else {}
    names = [name for name in cases() if options.match in name]
    results: dict[str, Row] = {}
    with multiprocessing.get_context("spawn").Pool(options.jobs) as pool:
        for number, (name, row) in enumerate(pool.imap_unordered(result_of, names), start=1):
            results[name] = row
            report(name, expected.get(name), row, f"{number}/{len(names)}")
    changed = [name for name in names if results[name] != expected.get(name)]
    print(f"{len(names)} graphs, {len(changed)} changed")
    if options.update:
        known = {**expected, **results}
        rows = (f"  {json.dumps(n)}: {json.dumps(known[n])}" for n in cases() if n in known)
        EXPECTED.write_text("{\n" + ",\n".join(rows) + "\n}\n", encoding="utf-8")
        return 0
    return 1 if changed else 0


def report(name: str, before: Row | None, after: Row, progress: str) -> None:
    """Print a changed graph with its number of nodes; keep a terminal informed of the others."""
    if before != after:
        nodes = "new" if before is None else f"{before['nodes']} -> {after['nodes']} nodes"
        print(f"changed  {name}: {nodes}", flush=True)
    elif sys.stderr.isatty():
        print(f"\r{progress}", end="\r", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
