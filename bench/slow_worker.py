"""A worker of `flatfold compare` whose variants called "slowed" take a tenth longer.

python -m bench.slow_worker JOB
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from flatfold.benchmark.measure import worker

SLOWER = 0.1


class Slowed(worker.Worker):
    """A worker that keeps its core busy for another tenth of each run of "slowed"."""

    def _once(self) -> float:
        assert self.bound is not None
        begin = time.perf_counter()
        self.bound()
        took = time.perf_counter() - begin
        extra = SLOWER * took if self.job.variant == "slowed" else 0.0
        while time.perf_counter() - begin < took + extra:
            pass
        return time.perf_counter() - begin


if __name__ == "__main__":
    worker.Worker = Slowed  # type: ignore[misc]
    worker.main(Path(sys.argv[1]))
