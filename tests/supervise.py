"""Run a range of seeds in workers that may crash or hang, with an outcome for every seed.

A worker is a module that is run with the first seed, the one behind the last, and options. Before
each seed it prints the line [SEED], and after it [SEED, "outcome"].
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
SECONDS = 60.0  # for one seed: most take 0.05 s, a few much longer
START = 60.0  # until a worker has loaded the libraries


def ignore(seed: int, outcome: str) -> None:
    """No report of progress."""


def outcomes(
    first: int,
    last: int,
    worker: str,
    *options: str,
    report: Callable[[int, str], None] = ignore,
) -> dict[int, str]:
    """The outcome of each seed from `first` to `last`; "hung" or "died of signal N" among them."""
    by_seed: dict[int, str] = {}
    while first < last:
        seed, outcome = first, "did not start"
        with _worker([worker, str(first), str(last), *options]) as process:
            limit = START
            while (line := _line(process, limit)) is not None:
                limit = SECONDS
                seed, *rest = json.loads(line)
                if rest:
                    by_seed[seed], outcome = rest[0], ""
                    report(seed, rest[0])
                else:
                    outcome = "hung"
            ended = process.poll()
            if ended is not None and outcome:
                outcome = f"died of signal {-ended}" if ended < 0 else f"died with {ended}"
        if outcome:
            by_seed[seed] = outcome
            report(seed, outcome)
        first = seed + 1
    return by_seed


@contextlib.contextmanager
def _worker(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        bufsize=0,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def _line(process: subprocess.Popen[bytes], seconds: float) -> bytes | None:
    """The next line of output; None if there is none within `seconds`, or no more at all."""
    assert process.stdout is not None
    line = b""
    while not line.endswith(b"\n"):
        if not select.select([process.stdout], [], [], seconds)[0]:
            return None
        byte = process.stdout.read(1)
        if not byte:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5)
            return None
        line += byte
    return line
