"""One variant in a process of its own: it builds once, then runs a block whenever it is told to.

    python -m flatfold.benchmark.measure.worker JOB

Lines of JSON arrive on stdin and leave on what was stdout; what a library prints goes to stderr.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from flatfold.benchmark.measure import arrays
from flatfold.errors import FlatfoldError, TargetError

MOST_WARMUP = 50  # runs
LONG = 0.25
LOOK_S, IDLE, SETTLED_S = 0.005, 0.2, 0.5  # how often, what counts as idle, and how long at most


class Worker:
    """What a job asks for: an engine of a target, a module run by PyTorch, or a copy in memory."""

    def __init__(self, job: Mapping[str, Any]) -> None:
        self.job = job
        self.subject: Any = None
        self.bound: Callable[[], object] | None = None
        self.loaded = False
        self.seconds = 0.0  # of a run, once it is warm

    def start(self) -> dict[str, Any]:
        """Builds, and runs once."""
        begin = time.perf_counter()
        make = {"torch": self._module, "memory": self._copy}.get(self.job["target"], self._engine)
        self.subject = make()
        built = time.perf_counter()
        feeds = arrays.read(self.job["feeds"])
        called = time.perf_counter()
        self.subject.run(feeds)
        first = time.perf_counter() - called
        self.bound = self.subject.bind(feeds)
        return {
            "build_s": None if self.loaded else built - begin,
            "first_call_s": first,
            "precision": self.subject.precision,
            "layers": self.subject.layers,
        }

    def warm(self, seconds: float) -> dict[str, Any]:
        """Runs until the time of a run is steady, or for so long, but often enough to tell."""
        from statistics import median

        from flatfold.timing import WINDOW, steady

        gc.collect()
        gc.disable()  # for good: what follows leaves nothing that has to be looked for
        samples: list[float] = []
        until = time.perf_counter() + seconds
        while len(samples) < 2 * WINDOW or (
            len(samples) < MOST_WARMUP and not steady(samples) and time.perf_counter() < until
        ):
            samples.append(self._once())
        self.seconds = median(samples[-WINDOW:])
        return {"seconds": self.seconds, "steady": steady(samples)}

    def block(self, runs: int) -> dict[str, Any]:
        """The seconds of each run, after one that finds the caches as another process left them.

        Beside a run of more than `LONG` seconds it is nothing to fill the caches again.
        """
        if self.seconds < LONG:
            self._once()
        return {"samples": [self._once() for _ in range(runs)]}

    def run(self, feeds: str, outputs: str) -> dict[str, Any]:
        """The outputs for other feeds, from one file into another."""
        arrays.store(outputs, self.subject.run(arrays.read(feeds)))
        return {}

    def profile(self, runs: int) -> dict[str, Any]:
        """The `seconds` of a run with the profiler on, and its `layers`; {} without a profiler."""
        feeds = arrays.read(self.job["feeds"])
        if self.job["target"] != "torch":
            found = self.subject.profile(feeds, runs)
            return {} if found is None else asdict(found)
        if self.job["compiled"]:
            return {}
        seconds, operators = self.subject.operators(feeds, runs)
        layers = [{"name": n, "kind": "", "seconds": s, "nodes": []} for n, s in operators.items()]
        return {"seconds": seconds, "layers": layers}

    def settle(self) -> None:
        """Waits until the threads of this process rest.

        Those of an engine go on waiting actively when a run is over, ONNX Runtime's for 50 ms: they
        would take cores from the process that runs next.
        """
        until = time.perf_counter() + SETTLED_S
        while time.perf_counter() < until:
            begin, spent = time.perf_counter(), time.process_time()
            time.sleep(LOOK_S)
            if time.process_time() - spent < IDLE * (time.perf_counter() - begin):
                return

    def _once(self) -> float:
        assert self.bound is not None
        begin = time.perf_counter()
        self.bound()
        return time.perf_counter() - begin

    def _engine(self) -> Any:
        """Built, or where that is dear, as an earlier process built and saved it."""
        from flatfold.backends import load_backend
        from flatfold.backends.store import bundle
        from flatfold.frontend.loading.load import read_model

        backend, saved = load_backend(self.job["target"]), Path(self.job["saved"])
        if saved.is_dir():
            self.loaded = True
            return bundle.load(saved)
        engine = backend.build(read_model(Path(self.job["model"])), self.job["options"])
        if backend.dear:
            engine.save(saved)
        return engine

    def _module(self) -> Any:
        from flatfold.frontend.pytorch.module import RunningModule

        job = self.job
        return RunningModule(
            Path(job["model"]),
            job["inputs"],
            job["outputs"],
            precision=job["precision"],
            compiled=job["compiled"],
            threads=job["threads"],
        )

    def _copy(self) -> Any:
        from flatfold.benchmark.machine.roofline import Copying

        return Copying(self.job["threads"])


def answer(worker: Worker, line: str) -> dict[str, Any]:
    """What came of one command. Any failure of the variant is an answer, too."""
    from flatfold.system.isolated import facts_of

    command = json.loads(line)
    try:
        found: dict[str, Any] = getattr(worker, command.pop("do"))(**command)
        worker.settle()
        return found
    except FlatfoldError as error:
        return {"error": facts_of(error)}
    except Exception as error:
        text = " ".join(str(error).split())[:400]
        return {"error": facts_of(TargetError(f"{type(error).__name__}: {text}"))}


def main(path: Path) -> None:
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    job = json.loads(path.read_text(encoding="utf-8"))
    if job["affinity"] and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, job["affinity"])
    worker = Worker(job)
    for line in sys.stdin:  # it ends when the process that asks is gone
        print(json.dumps(answer(worker, line)), file=answers, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
