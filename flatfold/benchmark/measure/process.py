"""The other end of a worker: it is told what to do, and watched."""

from __future__ import annotations

import json
import os
import secrets
import select
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from flatfold.benchmark.measure import arrays
from flatfold.benchmark.measure.protocol import Started
from flatfold.benchmark.report import Layer, Profile
from flatfold.errors import TargetError
from flatfold.system.isolated import (
    child_environment,
    end_with_children,
    error_of,
    how_it_ended,
    log_end,
)

MODULE = "flatfold.benchmark.measure.worker"
TIME_LIMIT = 600.0  # seconds for one command
PATIENCE = 5.0  # seconds until a process that closed its output has ended
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class Process:
    """See `measuring.Runner`; `job` is what `worker.Worker` reads, `folder` is for its files.

    A worker that crashes, or takes longer than `time_limit` for one command, is a TargetError with
    the end of what it printed.
    """

    def __init__(
        self, job: Mapping[str, Any], folder: Path, time_limit: float = TIME_LIMIT
    ) -> None:
        self.folder, self.time_limit = folder, time_limit
        self.where = f"{job['variant']} on target {job['target']}"
        self.row = f"{job['variant']} {job['target']}"
        self.precision = ""
        name = secrets.token_hex(8)
        self.log = folder / f"{name}.log"
        path = folder / f"{name}.json"
        path.write_text(json.dumps(dict(job)), encoding="utf-8")
        threads = dict.fromkeys(THREADS, str(job["threads"]))
        with open(self.log, "wb") as log:
            self.child = subprocess.Popen(
                [sys.executable, "-m", MODULE, str(path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**child_environment(), **threads},
                bufsize=0,
                start_new_session=True,  # so that what it starts can be ended with it
            )

    def start(self) -> Started:
        found = Started(**self._ask("start"))
        self.precision = found.precision
        return found

    def warm(self, seconds: float) -> tuple[float, bool]:
        found = self._ask("warm", seconds=seconds)
        return found["seconds"], found["steady"]

    def block(self, runs: int) -> list[float]:
        samples: list[float] = self._ask("block", runs=runs)["samples"]
        return [round(sample, 9) for sample in samples]  # the clock has no finer tick

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """The outputs by name."""
        given, made = self.folder / "given.npz", self.folder / "made.npz"
        arrays.store(given, feeds)
        self._ask("run", feeds=str(given), outputs=str(made))
        return arrays.read(made)

    def profile(self, runs: int) -> Profile | None:
        """Where the time of a run goes, as the engine tells; None where it has no profiler."""
        found = self._ask("profile", runs=runs)
        if not found:
            return None
        told = ({**layer, "nodes": tuple(layer["nodes"])} for layer in found["layers"])
        layers = tuple(Layer(**layer) for layer in told)
        return Profile(self.row, found["seconds"], layers, found.get("device_s"))

    def close(self) -> None:
        end_with_children(self.child)
        for pipe in (self.child.stdin, self.child.stdout):
            assert pipe is not None
            pipe.close()

    @property
    def alive(self) -> bool:
        return self.child.poll() is None

    def _ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        stdin = self.child.stdin
        assert stdin is not None
        try:
            stdin.write(json.dumps({"do": command, **arguments}).encode() + b"\n")
        except OSError as error:
            raise self._ended() from error
        found: dict[str, Any] = json.loads(self._line())
        if "error" in found:
            raise error_of(found["error"])
        return found

    def _line(self) -> bytes:
        """The next line of the worker. Raises TargetError where it does not come in time."""
        stdout: IO[bytes] | None = self.child.stdout
        assert stdout is not None
        line = b""
        while not line.endswith(b"\n"):
            if not select.select([stdout], [], [], self.time_limit)[0]:
                end_with_children(self.child)
                raise TargetError(
                    f"it took longer than {self.time_limit:g} s and was stopped", where=self.where
                )
            part = os.read(stdout.fileno(), 1 << 16)
            if not part:
                raise self._ended()
            line += part
        return line

    def _ended(self) -> TargetError:
        with suppress(subprocess.TimeoutExpired):
            self.child.wait(PATIENCE)
        code = self.child.poll()
        end_with_children(self.child)
        how = how_it_ended(code) if code is not None else "does not answer"
        return TargetError(f"its process {how}{log_end(self.log)}", where=self.where)
