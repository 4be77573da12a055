"""Tasks in processes of their own, so that one that crashes or hangs takes no other with it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import connection, get_context
from typing import Any, Generic, TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")
CRASH, HANG = "crash", "hang"

_FORK = get_context("fork")  # a worker starts with what is loaded here, which takes seconds to load


class _Worker(Generic[Task]):
    """One process, and the task that it is at."""

    def __init__(self, run: Callable[[Task], Any]) -> None:
        self.task: Task | None = None
        self.since = 0.0
        self.pipe, other = _FORK.Pipe()
        self.process = _FORK.Process(target=_serve, args=(other, run), daemon=True)
        self.process.start()
        other.close()

    def start(self, task: Task) -> None:
        self.task, self.since = task, time.monotonic()
        self.pipe.send(task)

    def stop(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


def run_all(
    tasks: Sequence[Task], run: Callable[[Task], Result], *, jobs: int, seconds: float
) -> Iterator[tuple[Task, Result | str]]:
    """(task, run(task)) as they come; CRASH for one that ended its process, HANG for one that was
    not done after `seconds`. What a process writes to its streams is dropped."""
    left = list(reversed(tasks))
    workers = [_Worker[Task](run) for _ in range(min(jobs, len(left)))]
    try:
        while workers:
            for worker in [w for w in workers if w.task is None]:
                if left:
                    worker.start(left.pop())
                else:
                    worker.stop()
                    workers.remove(worker)
            connection.wait([worker.pipe for worker in workers], timeout=0.2)
            for place, worker in enumerate(workers):
                result = _result(worker, seconds)
                if result is None:
                    continue
                assert worker.task is not None
                yield worker.task, result
                worker.task = None
                if result in (CRASH, HANG):
                    worker.stop()
                    workers[place] = _Worker(run)
    finally:
        for worker in workers:
            worker.stop()


def _result(worker: _Worker[Any], seconds: float) -> Any:
    """What the worker has come to; None while it is at it."""
    if worker.pipe.poll():
        try:
            return worker.pipe.recv()
        except (EOFError, ConnectionResetError):
            return CRASH
    return HANG if time.monotonic() - worker.since > seconds else None


def _serve(pipe: Any, run: Callable[[Any], Any]) -> None:
    quiet = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(quiet, stream)
    parent = os.getppid()
    while os.getppid() == parent:  # the pipe alone does not tell: the other workers have it too
        if pipe.poll(1.0):
            pipe.send(run(pipe.recv()))
