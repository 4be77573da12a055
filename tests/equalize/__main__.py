"""Equalise random networks, and compare their outputs with those of the originals bit by bit.

python -m tests.equalize [--seed N] [--count N] [--jobs N]

The seeds are N, N + 1 and so on. Prints what became of how many, and each that differs; exits with
1 if there was one.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
from collections import Counter

from tests.equalize.bits import outcome


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.equalize", description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    seeds = range(options.seed, options.seed + options.count)
    counts: Counter[str] = Counter()
    with multiprocessing.get_context("spawn").Pool(options.jobs) as pool:
        for seed, result in zip(seeds, pool.imap(outcome, seeds, chunksize=20), strict=True):
            counts[result.partition(":")[0]] += 1
            if result.startswith("different"):
                print(f"seed {seed}: {result}", flush=True)
    said = ", ".join(f"{count} {what}" for what, count in sorted(counts.items()))
    print(f"seeds {options.seed} to {seeds[-1]}: {said}")
    return int(counts["different"] > 0)


if __name__ == "__main__":
    sys.exit(main())
