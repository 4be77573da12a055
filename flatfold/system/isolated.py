"""Building in a process of its own: an SDK that crashes or hangs takes only that one with it.

    with made_apart("package.module:make", write, options, ...) as folder:
        engine = (folder / "engine.bin").read_bytes()

`write(path)` writes the ONNX file. A maker is a function `make(model, folder, options, say)`: it
reads the ONNX file `model`, writes what it builds into `folder`, and calls `say` with a line on
what it is doing.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from flatfold import errors
from flatfold.errors import BuildError, FlatfoldError
from flatfold.system.progress import Progress, silent

_LONGEST = 600  # characters


def tail(message: object, longest: int = _LONGEST) -> str:
    """The end of a message, where its cause is, on one line."""
    return " ".join(str(message).split())[-longest:]


MODEL, FOLDER, JOB, LOG, ERROR = "model.onnx", "made", "job.json", "log.txt", "error.json"
SAID = "flatfold says: "
TIME_LIMIT = 600.0
_TAIL = 800  # characters of a log worth showing: the cause is at its end
_PATIENCE = 5.0  # seconds for a process that was asked to end


@contextmanager
def made_apart(
    maker: str,
    write: Callable[[Path], object],
    options: Mapping[str, Any],
    *,
    target: str,
    time_limit: float = TIME_LIMIT,
    progress: Progress = silent,
) -> Iterator[Path]:
    """A temporary folder with what `maker`, "module:function", built of the model
    that `write` wrote.

    The process is killed after `time_limit` seconds, and when the caller is interrupted. Raises
    BuildError with the end of its log where it crashed, failed or took too long. What the maker
    itself raises of `flatfold.errors` arrives as it was.
    """
    with tempfile.TemporaryDirectory(prefix="flatfold-", ignore_cleanup_errors=True) as name:
        place = Path(name)
        (place / FOLDER).mkdir()
        write(place / MODEL)
        job = {"maker": maker, "options": dict(options)}
        (place / JOB).write_text(json.dumps(job), encoding="utf-8")
        code = _supervise(place, target, time_limit, progress)
        if code != 0:
            raise _failure(place, target, code)
        yield place / FOLDER


def _supervise(place: Path, target: str, time_limit: float, progress: Progress) -> int:
    """The exit status of the process that does the job in `place`."""
    command = [sys.executable, "-m", "flatfold.system.child", str(place)]
    with open(place / LOG, "wb") as log:
        child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,  # it closes when this process dies, and then the maker ends too
            stdout=subprocess.PIPE,
            stderr=log,
            env=child_environment(),
            start_new_session=True,  # so that what it starts can be killed with it
        )
        late = threading.Event()

        def stop() -> None:
            late.set()
            end_with_children(child)

        alarm = threading.Timer(time_limit, stop)
        alarm.daemon = True
        alarm.start()
        try:
            _listen(child, log, progress)
            code = child.wait()
        finally:
            alarm.cancel()
            end_with_children(child)
            assert child.stdin is not None
            child.stdin.close()
    if late.is_set():
        raise BuildError(
            f"the build took longer than {time_limit:g} s and was stopped{_end(place)}",
            where=f"target {target}",
            hint="give it more with the option time_limit, or another target",
        )
    return code


def _listen(child: subprocess.Popen[bytes], log: Any, progress: Progress) -> None:
    """What the maker says goes to `progress`, what the SDK prints to the log."""
    assert child.stdout is not None
    with child.stdout as lines:
        for line in lines:
            text = line.decode(errors="replace").rstrip("\n")
            if text.startswith(SAID):
                progress(text.removeprefix(SAID))
            else:
                log.write(line)
                log.flush()


def _failure(place: Path, target: str, code: int) -> FlatfoldError:
    try:
        return error_of(json.loads((place / ERROR).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        pass
    return BuildError(
        f"the build {how_it_ended(code)}{_end(place)}",
        where=f"target {target}",
        hint="please report it with the model to the makers of the target; another one may do",
    )


def facts_of(error: FlatfoldError) -> dict[str, str]:
    """An error as JSON, to be raised again in another process."""
    kind = type(error).__name__
    return {"kind": kind, "cause": error.cause, "where": error.where, "hint": error.hint}


def error_of(facts: Mapping[str, str]) -> FlatfoldError:
    """The error that `facts_of` wrote."""
    told = dict(facts)
    kind = getattr(errors, told.pop("kind"))
    error: FlatfoldError = kind(told.pop("cause"), **told)
    return error


def how_it_ended(code: int) -> str:
    """The exit status of a process, to be put behind its name."""
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"


def _end(place: Path) -> str:
    return log_end(place / LOG)


def log_end(log: Path) -> str:
    """The end of a log, to be put behind a sentence."""
    text = log.read_bytes().decode(errors="replace")
    end = tail(text, _TAIL)
    return f": {end}" if end else ""


def end_with_children(child: subprocess.Popen[bytes]) -> None:
    """End the process and all that it has started; nothing is left of it afterwards."""
    if hasattr(os, "killpg"):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
    elif child.poll() is None:
        child.kill()
    with suppress(subprocess.TimeoutExpired):  # in a call of the system that nothing interrupts
        child.wait(_PATIENCE)


def child_environment() -> dict[str, str]:
    """Ours, with the paths on which this process found flatfold."""
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    return {**os.environ, "PYTHONPATH": path}
