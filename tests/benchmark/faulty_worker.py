"""A worker of which some variants crash, hang or print.

`flatfold.benchmark.measure.worker` does the rest.

python -m tests.benchmark.faulty_worker JOB
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

from flatfold.benchmark.measure import worker


class Faulty(worker.Worker):
    """What goes wrong is what the variant is called, or what its options say."""

    def start(self) -> dict[str, Any]:
        if self.job.variant == "light":
            print("a line on stdout that is no answer", flush=True)
            return {"build_s": 0.5, "first_call_s": 0.25, "precision": "fp32", "layers": 3}
        return super().start()

    def block(self, runs: int) -> dict[str, Any]:
        fault = self.job.options.get("fault") or {"onnxslim": "crash"}.get(self.job.variant)
        return self._fail(fault) if fault or self.bound is None else super().block(runs)

    def _fail(self, fault: str | None) -> dict[str, Any]:
        if fault == "crash":
            print("the kernel is not happy", file=sys.stderr, flush=True)
            os.abort()
        if fault == "hang":
            time.sleep(600)
        if fault == "raise":
            raise ZeroDivisionError("what a library raises")
        return {"samples": [0.1234567891234, 0.2]}


if __name__ == "__main__":
    worker.Worker = Faulty  # type: ignore[misc]
    worker.main(Path(sys.argv[1]))
