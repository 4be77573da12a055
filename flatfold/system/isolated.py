"""Child processes: an SDK that crashes or hangs takes only its own process with it.

    with build_in_subprocess("package.module:build", write_model, options, ...) as folder:
        engine = (folder / "engine.bin").read_bytes()

`flatfold compare` runs each engine in such a process, too. One protocol serves both. The parent
starts `python -m MODULE JOB`; the file JOB holds a frozen dataclass as JSON. The parent then writes
commands to stdin, one line of JSON each: {"command": name, "arguments": {...}}. The child answers
on stdout, also in lines of JSON: {"progress": text}, as often as it likes, and then once
{"result": {...}} or {"error": {...}}. What a library prints goes to a log file. The child ends when
its stdin is closed, so that it does not outlive its parent. Its side is `flatfold.system.child`.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from flatfold import errors
from flatfold.errors import BuildError, FlatfoldError
from flatfold.system.progress import Progress, silent

MODULE = "flatfold.system.child"
TIME_LIMIT = 600.0  # seconds for one command
_GRACE_S = 5.0  # for a process that was killed, or that closed its output, to end
_LONGEST_MESSAGE = 600  # characters
_LONGEST_LOG = 800  # characters of a log that are shown: the cause is at its end


@dataclass(frozen=True)
class BuildJob:
    """`builder`, as "module:function", turns the ONNX file `model` into files in `folder`."""

    builder: str
    model: str
    folder: str
    options: dict[str, Any]


@contextmanager
def build_in_subprocess(
    builder: str,
    write: Callable[[Path], object],
    options: Mapping[str, Any],
    *,
    target: str,
    time_limit: float = TIME_LIMIT,
    progress: Progress = silent,
) -> Iterator[Path]:
    """A temporary folder with the files that a builder wrote for a model, in a child process.

    `write(path)` writes the ONNX file. `builder` is "module:function" of a function
    `build(model, folder, options, progress)`, which reads the ONNX file `model`, writes its results
    into `folder` and calls `progress` with a line on what it is doing. The child is killed after
    `time_limit` seconds, and when the caller is interrupted. Raises BuildError with the end of the
    child's log where it crashed, failed or took too long. An error of `flatfold.errors` that the
    builder raises is raised here again.
    """
    with tempfile.TemporaryDirectory(prefix="flatfold-", ignore_cleanup_errors=True) as name:
        model, results = Path(name, "model.onnx"), Path(name, "results")
        results.mkdir()
        write(model)
        job = BuildJob(builder, str(model), str(results), dict(options))
        child = Child(MODULE, job, Path(name), time_limit)
        try:
            child.ask("build", progress)
        except ChildFailed as failure:
            raise _build_error(failure, target) from None
        finally:
            child.close()
        yield results


def _build_error(failure: ChildFailed, target: str) -> BuildError:
    if failure.timed_out:
        hint = "give it more with the option time_limit, or another target"
    else:
        hint = "please report it with the model to the makers of the target; another one may do"
    return BuildError(f"the build {failure}", where=f"target {target}", hint=hint)


class ChildFailed(Exception):
    """A child process crashed or was stopped: how, to be read behind its name, and its log."""

    def __init__(self, reason: str, log: Path, timed_out: bool = False) -> None:
        text = tail(log.read_bytes().decode(errors="replace"), _LONGEST_LOG)
        super().__init__(f"{reason}: {text}" if text else reason)
        self.timed_out = timed_out


class Child:
    """A process that runs `python -m module` on `job`, a dataclass; its files are in `folder`.

    A command that takes longer than `time_limit` seconds is stopped, with the process.
    `environment` is added to that of this process.
    """

    def __init__(
        self,
        module: str,
        job: Any,
        folder: Path,
        time_limit: float = TIME_LIMIT,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.time_limit = time_limit
        name = secrets.token_hex(8)
        self.log, path = folder / f"{name}.log", folder / f"{name}.json"
        path.write_text(json.dumps(asdict(job)), encoding="utf-8")
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module, str(path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, "PYTHONPATH": _import_path(), **(environment or {})},
                start_new_session=True,  # so that what it starts can be ended with it
            )

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def ask(self, command: str, progress: Progress = silent, **arguments: Any) -> dict[str, Any]:
        """The result of a command. Raises ChildFailed, or the FlatfoldError that it failed with."""
        timed_out = threading.Event()

        def stop() -> None:
            timed_out.set()
            self.end()

        alarm = threading.Timer(self.time_limit, stop)
        alarm.daemon = True
        alarm.start()
        try:
            answer = self._answer({"command": command, "arguments": arguments}, progress)
        finally:
            alarm.cancel()
        if timed_out.is_set():
            self.end()  # the other thread may still wait for it
            reason = f"took longer than {self.time_limit:g} s and was stopped"
            raise ChildFailed(reason, self.log, timed_out=True)
        if answer is None:
            raise ChildFailed(self._ending(), self.log)
        if "error" in answer:
            raise read_error(answer["error"])
        result: dict[str, Any] = answer["result"]
        return result

    def _answer(self, command: Mapping[str, Any], progress: Progress) -> dict[str, Any] | None:
        """The last line of the answer; None where the process ended before."""
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None and stdout is not None
        try:
            stdin.write(json.dumps(command).encode() + b"\n")
            stdin.flush()
        except OSError:
            return None
        for line in stdout:
            if not line.endswith(b"\n"):
                break  # it ended while it wrote
            answer: dict[str, Any] = json.loads(line)
            if "progress" not in answer:
                return answer
            progress(answer["progress"])
        return None

    def _ending(self) -> str:
        """How the process ended, to be read behind its name."""
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(_GRACE_S)
        code = self.process.poll()
        self.end()
        if code is None:
            return "does not answer"
        if code < 0:
            return f"was ended by {signal.Signals(-code).name}"
        return f"ended with status {code}"

    def end(self) -> None:
        """Ends the process and all that it has started."""
        if hasattr(os, "killpg"):
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)
        elif self.alive:
            self.process.kill()
        with suppress(subprocess.TimeoutExpired):  # in a call of the system that nothing interrupts
            self.process.wait(_GRACE_S)

    def close(self) -> None:
        """Ends the process and closes the pipes to it; a second time does nothing."""
        self.end()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            with suppress(BrokenPipeError):  # of a command that was not read
                pipe.close()


def _import_path() -> str:
    """The folders where this process finds its modules."""
    return os.pathsep.join(entry or os.getcwd() for entry in sys.path)


def error_content(error: FlatfoldError) -> dict[str, str]:
    """An error as JSON, to be raised again in another process."""
    kind = type(error).__name__
    return {"kind": kind, "cause": error.cause, "where": error.where, "hint": error.hint}


def read_error(content: Mapping[str, str]) -> FlatfoldError:
    """The error that `error_content` wrote."""
    kind = getattr(errors, content["kind"])
    error: FlatfoldError = kind(content["cause"], where=content["where"], hint=content["hint"])
    return error


def tail(message: object, longest: int = _LONGEST_MESSAGE) -> str:
    """The end of a message, where its cause is, on one line."""
    return " ".join(str(message).split())[-longest:]
