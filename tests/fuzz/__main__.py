"""Rewrite random graphs, and compare each with its original in double precision.

python -m tests.fuzz [--seed N] [--count N] [--verify off] [--jobs N] [--save FOLDER]

The seeds are N, N + 1 and so on. Faults are printed as they appear, and with --save the smallest
graph that has the same fault is written. Exits with 1 if there was one.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from threading import Lock

from tests.supervise import outcomes

AT_ONCE = 100  # seeds to a worker, which keeps what it has loaded small


def main() -> int:
    options = _options()
    counts: Counter[str] = Counter()
    lock = Lock()

    def report(seed: int, outcome: str) -> None:
        with lock:
            counts[outcome if is_right(outcome) else "faults"] += 1
            if not is_right(outcome):
                print(f"seed {seed}: {outcome}", flush=True)
            if counts.total() % 500 == 0:
                print(f"{counts.total()} of {options.count}: {_said(counts)}", flush=True)

    last = options.seed + options.count
    extra = [options.verify, *([options.save] if options.save else [])]
    with ThreadPoolExecutor(options.jobs) as pool:
        for first in range(options.seed, last, AT_ONCE):
            until = min(first + AT_ONCE, last)
            pool.submit(outcomes, first, until, "tests.fuzz.worker", *extra, report=report)
    print(f"seeds {options.seed} to {last - 1}, verify={options.verify}: {_said(counts)}")
    return int(counts["faults"] > 0 or counts.total() != options.count)


def is_right(outcome: str) -> bool:
    """Whether a graph was rewritten to one that computes the same, or none was drawn."""
    return outcome.startswith("right") or outcome == "nothing drawn"


def _said(counts: Counter[str]) -> str:
    return ", ".join(f"{number} {outcome}" for outcome, number in sorted(counts.items()))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--verify", default="off", choices=("off", "sample", "bound", "certify"))
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--save", default="")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
