"""A worker process, as the process that measures sees it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flatfold.benchmark.measure import arrays
from flatfold.benchmark.measure.job import Job
from flatfold.benchmark.measure.protocol import Started
from flatfold.benchmark.report import Layer, Profile
from flatfold.errors import TargetError
from flatfold.system.isolated import TIME_LIMIT, Child, ChildFailed

MODULE = "flatfold.benchmark.measure.worker"
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class Process:
    """Runs `job` in a worker process; implements `protocol.Runner`. `folder` is for its files.

    A worker that crashes, or takes longer than `time_limit` seconds for one command, is a
    TargetError with the end of what it printed.
    """

    def __init__(self, job: Job, folder: Path, time_limit: float = TIME_LIMIT) -> None:
        self.folder = folder
        self.where = f"{job.variant} on target {job.target}"
        self.row = f"{job.variant} {job.target}"
        self.precision = ""
        threads = dict.fromkeys(THREADS, str(job.threads))
        self.child = Child(MODULE, job, folder, time_limit, threads)

    def start(self) -> Started:
        started = Started(**self._ask("start"))
        self.precision = started.precision
        return started

    def warm(self, seconds: float) -> tuple[float, bool]:
        result = self._ask("warm", seconds=seconds)
        return result["seconds"], result["steady"]

    def block(self, runs: int) -> list[float]:
        samples: list[float] = self._ask("block", runs=runs)["samples"]
        return [round(sample, 9) for sample in samples]  # the clock has no finer tick

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """The outputs by name."""
        inputs, outputs = self.folder / "inputs.npz", self.folder / "outputs.npz"
        arrays.store(inputs, feeds)
        self._ask("run", feeds=str(inputs), outputs=str(outputs))
        return arrays.read(outputs)

    def profile(self, runs: int) -> Profile | None:
        """The time of each layer by the engine's profiler; None where it has none."""
        result = self._ask("profile", runs=runs)
        if not result:
            return None
        layers = tuple(
            Layer(**{**layer, "nodes": tuple(layer["nodes"])}) for layer in result["layers"]
        )
        return Profile(self.row, result["seconds"], layers, result.get("device_s"))

    def close(self) -> None:
        self.child.close()

    @property
    def alive(self) -> bool:
        return self.child.alive

    def _ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        try:
            return self.child.ask(command, **arguments)
        except ChildFailed as failure:
            raise TargetError(f"its process {failure}", where=self.where) from None
