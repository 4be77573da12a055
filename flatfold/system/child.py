"""The child's side of `flatfold.system.isolated`, and the process that builds an engine.

python -m flatfold.system.child JOB
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

from flatfold.errors import FlatfoldError
from flatfold.system.isolated import BuildJob, error_content
from flatfold.system.progress import Progress

T = TypeVar("T")

Perform = Callable[[str, Mapping[str, Any], Progress], dict[str, Any]]


def read_job(path: Path, kind: type[T]) -> T:
    """The dataclass `kind` from a JSON file. Raises TypeError for unknown keys and wrong types."""
    import msgspec

    content = json.loads(path.read_text(encoding="utf-8"))
    unknown = content.keys() - {field.name for field in fields(kind)}  # type: ignore[arg-type]
    if unknown:
        raise TypeError(f"expected a {kind.__name__}, found unknown keys {sorted(unknown)}")
    try:
        return msgspec.convert(content, kind)
    except msgspec.ValidationError as error:
        raise TypeError(f"expected a {kind.__name__}: {error}") from error


def serve(perform: Perform) -> None:
    """Answers each command with the result of `perform(command, arguments, progress)`.

    A FlatfoldError is an answer; any other exception ends this process, with its traceback in the
    log. Never returns otherwise: the process ends when its parent closes stdin.
    """
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints is no answer

    def send(answer: Mapping[str, Any]) -> None:
        print(json.dumps(answer), file=answers, flush=True)

    def progress(line: str) -> None:
        send({"progress": " ".join(line.split())})

    lines: SimpleQueue[bytes] = SimpleQueue()
    threading.Thread(target=_receive, args=(lines,), daemon=True).start()
    while True:
        request = json.loads(lines.get())
        try:
            send({"result": perform(request["command"], request["arguments"], progress)})
        except FlatfoldError as error:
            send({"error": error_content(error)})


def _receive(lines: SimpleQueue[bytes]) -> None:
    """Ends the process at the end of stdin, even while a command runs: nobody waits for it."""
    pending = b""
    while part := os.read(sys.stdin.fileno(), 1 << 16):  # no buffer, whose lock is held at exit
        *complete, pending = (pending + part).split(b"\n")
        for line in complete:
            lines.put(line)
    os._exit(1)


def main(path: Path) -> None:
    job = read_job(path, BuildJob)
    module, _, function = job.builder.partition(":")
    build = getattr(importlib.import_module(module), function)

    def perform(command: str, arguments: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
        build(Path(job.model), Path(job.folder), job.options, progress)
        return {}

    serve(perform)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
