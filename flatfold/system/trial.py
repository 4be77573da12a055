"""A graph tried in ONNX Runtime in a child process: where it crashes or hangs, only that one ends.

    attempt = Trial(content)
    attempt.refused                           # "" where ONNX Runtime makes a session of the graph
    attempt.run({"x": [1, 3, 224, 224]})      # raises InputError where it crashes

One child serves all trials of this process, one after another; the first one starts it. Its side
is `flatfold.system.trial_child`.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flatfold.errors import InputError
from flatfold.system.isolated import Child, ChildFailed

MODULE = "flatfold.system.trial_child"
READ = "flatfold.read"
"""Key in the `meta` of a graph and its copies: whether it was read, and not yet tried."""

TIME_LIMIT = 60.0  # seconds for one trial


@dataclass(frozen=True)
class TrialJob:
    """The file that each graph is written to."""

    path: str


class Trial:
    """The serialized model `content` in a session of the child process.

    `refused`: why ONNX Runtime makes no session of it; "" where it does. Raises InputError where it
    crashes, or takes longer than TIME_LIMIT.
    """

    def __init__(self, content: bytes) -> None:
        self._content = content
        with _lock:
            self.refused = self._open()

    def run(self, shapes: Mapping[str, Sequence[int]]) -> float:
        """Run the graph once, with ones; an error of that run counts for nothing.

        Returns the seconds of CPU that it took.

        `shapes` are those of its inputs; an open size of another input is 1. Raises InputError
        where it crashes, or takes longer than TIME_LIMIT.
        """
        with _lock:
            if _process is None or _process.opened is not self or not _process.child.alive:
                self._open()
            sizes = {name: list(shape) for name, shape in shapes.items()}
            return float(self._ask("run", shapes=sizes)["seconds"])

    def _open(self) -> str:
        process = _current()
        process.path.write_bytes(self._content)
        answer = self._ask("open")
        process.opened = self
        return str(answer["refused"])

    def _ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        process = _current()
        try:
            return process.child.ask(command, **arguments)
        except ChildFailed as failure:
            process.close()
            raise InputError(
                f"ONNX Runtime, tried on the graph in a process of its own, {failure}",
                hint='the file is damaged, or meets a fault of ONNX Runtime; verify="off" runs '
                "nothing",
            ) from None


class _Process:
    """The child, and the folder with its files."""

    def __init__(self) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="flatfold-", ignore_cleanup_errors=True)
        self.path, self.owner = Path(self.folder.name, "model.onnx"), os.getpid()
        folder = Path(self.folder.name)
        self.child = Child(MODULE, TrialJob(str(self.path)), folder, TIME_LIMIT)
        self.opened: Trial | None = None

    def close(self) -> None:
        self.child.close()
        self.folder.cleanup()


_lock = threading.Lock()
_process: _Process | None = None


def _current() -> _Process:
    """The child of this process; a new one where it has ended, and in a process that was forked."""
    global _process
    if _process is None or _process.owner != os.getpid() or not _process.child.alive:
        _process = _Process()
    return _process
