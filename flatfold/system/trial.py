"""A graph tried in ONNX Runtime in a child process: where it crashes or hangs, only that one ends.

    refused = trial(content, run=True)        # "" where ONNX Runtime makes a session of the graph

One child serves all trials of this process, one after another; the first one starts it. Its side
is `flatfold.system.trial_child`.
"""

from __future__ import annotations

import os
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

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


def trial(content: bytes, *, run: bool) -> str:
    """Why ONNX Runtime refuses the serialized model `content`; "" where it does not.

    With `run` it also runs the graph once, with ones and open sizes of 1; an error of that run
    counts for nothing. Raises InputError where it crashes, or takes longer than TIME_LIMIT.
    """
    with _lock:
        process = _current()
        process.path.write_bytes(content)
        try:
            answer = process.child.ask("try", run=run)
        except ChildFailed as failure:
            process.close()
            raise InputError(
                f"ONNX Runtime, tried on the graph in a process of its own, {failure}",
                hint='the file is damaged, or meets a fault of ONNX Runtime; verify="off" runs '
                "nothing",
            ) from None
    return str(answer["refused"])


class _Process:
    """The child, and the folder with its files."""

    def __init__(self) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="flatfold-", ignore_cleanup_errors=True)
        self.path, self.owner = Path(self.folder.name, "model.onnx"), os.getpid()
        folder = Path(self.folder.name)
        self.child = Child(MODULE, TrialJob(str(self.path)), folder, TIME_LIMIT)

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
