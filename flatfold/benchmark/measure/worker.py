"""The worker process: it builds one engine, then runs a block of runs for each command.

    python -m flatfold.benchmark.measure.worker JOB

Each public method of `Worker` but `settle` is a command; `flatfold.system.isolated` has the
protocol.
"""

from __future__ import annotations

import gc
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from flatfold.benchmark.measure import arrays
from flatfold.benchmark.measure.job import MEMORY, Job
from flatfold.benchmark.report import TORCH
from flatfold.errors import FlatfoldError, TargetError
from flatfold.system.child import read_job, serve
from flatfold.system.progress import Progress

MOST_WARMUP = 50  # runs
LONG = 0.25  # seconds of a run
# Seconds between two looks at the threads, the share of a core that is idle, and the longest wait.
LOOK_S, IDLE, SETTLED_S = 0.005, 0.2, 0.5


class Worker:
    """Runs the subject of a job: an engine of a target, a PyTorch module, or a copy in memory."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.subject: Any = None
        self.bound: Callable[[], object] | None = None  # runs the subject once on the feeds
        self.loaded = False  # the engine was saved by an earlier process
        self.seconds = 0.0  # of a run, once it is warm

    def start(self) -> dict[str, Any]:
        """Builds, and runs once."""
        begin = time.perf_counter()
        make = {TORCH: self._module, MEMORY: self._copy}.get(self.job.target, self._engine)
        self.subject = make()
        built = time.perf_counter()
        feeds = arrays.read(self.job.feeds)
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
        """Runs for at most `seconds` until the time of a run is steady, but at least ten times."""
        from statistics import median

        from flatfold.timing import WINDOW, steady

        gc.collect()
        gc.disable()  # for good: the runs make no cyclic garbage
        samples: list[float] = []
        until = time.perf_counter() + seconds
        while len(samples) < 2 * WINDOW or (
            len(samples) < MOST_WARMUP and not steady(samples) and time.perf_counter() < until
        ):
            samples.append(self._once())
        self.seconds = median(samples[-WINDOW:])
        return {"seconds": self.seconds, "steady": steady(samples)}

    def block(self, runs: int) -> dict[str, Any]:
        """The seconds of each run, after one that fills the caches, which another process used.

        A run of more than `LONG` seconds needs none: filling the caches takes little of its time.
        """
        if self.seconds < LONG:
            self._once()
        return {"samples": [self._once() for _ in range(runs)]}

    def run(self, feeds: str, outputs: str) -> dict[str, Any]:
        """Reads inputs from the file `feeds` and writes their outputs to the file `outputs`."""
        arrays.store(outputs, self.subject.run(arrays.read(feeds)))
        return {}

    def profile(self, runs: int) -> dict[str, Any]:
        """The `seconds` of a run with the profiler on, and its `layers`; {} without a profiler."""
        feeds = arrays.read(self.job.feeds)
        if self.job.target != TORCH:
            profile = self.subject.profile(feeds, runs)
            return {} if profile is None else asdict(profile)
        if self.job.compiled:
            return {}
        seconds, operators = self.subject.operators(feeds, runs)
        layers = [{"name": n, "kind": "", "seconds": s, "nodes": []} for n, s in operators.items()]
        return {"seconds": seconds, "layers": layers}

    def settle(self) -> None:
        """Waits until the threads of this process are idle.

        Those of an engine spin for a while after a run, ONNX Runtime's for 50 ms: they would take
        cores from the process that runs next.
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
        """The engine, loaded where an earlier process saved it because building takes long."""
        from flatfold.backends import load_backend, store
        from flatfold.frontend import read_model

        backend, saved = load_backend(self.job.target), Path(self.job.saved)
        if saved.is_dir():
            self.loaded = True
            return store.load(saved)
        engine = backend.build(read_model(Path(self.job.model), keep_shapes=True), self.job.options)
        if backend.save_built_engine:
            engine.save(saved)
        return engine

    def _module(self) -> Any:
        from flatfold.frontend.pytorch.module import RunningModule

        job = self.job
        return RunningModule(
            Path(job.model),
            job.inputs,
            job.outputs,
            precision=job.precision,
            compiled=job.compiled,
            threads=job.threads,
        )

    def _copy(self) -> Any:
        from flatfold.benchmark.machine.roofline import Copying

        return Copying(self.job.threads)


def perform(
    worker: Worker, command: str, arguments: Mapping[str, Any], _: Progress
) -> dict[str, Any]:
    """The result of one command. Raises TargetError for whatever a library raises."""
    try:
        result: dict[str, Any] = getattr(worker, command)(**arguments)
        worker.settle()
        return result
    except FlatfoldError:
        raise
    except Exception as error:
        text = " ".join(str(error).split())[:400]
        raise TargetError(f"{type(error).__name__}: {text}") from error


def main(path: Path) -> None:
    job = read_job(path, Job)
    if job.affinity and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, job.affinity)
    serve(partial(perform, Worker(job)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
