"""The terminal: results on stdout, messages and progress on stderr, Ctrl-C while work is done."""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from types import FrameType
from typing import TYPE_CHECKING, Any

from flatfold.system.progress import Progress
from flatfold.text import clean

if TYPE_CHECKING:
    from rich.console import Console

SCHEMA = 1
PIPE_WIDTH = 160  # columns of a table that no terminal limits
RETRY_S = 0.05
IMPORTING = "<frozen importlib._bootstrap>"
_AGES = ((86400, "d"), (3600, "h"), (60, "min"))

Hook = Callable[["sys.UnraisableHookArgs"], object]


def out() -> Console:
    """The console for results. Prints text as it is: no markup, no highlighting, no emoji."""
    return _console(stderr=False)


def err() -> Console:
    """The console for messages and progress."""
    return _console(stderr=True)


def _console(stderr: bool) -> Console:
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else PIPE_WIDTH
    return Console(stderr=stderr, markup=False, highlight=False, emoji=False, width=width)


def emit(verb: str, result: Mapping[str, Any]) -> None:
    """Print one JSON object on stdout; numbers that JSON does not have become null."""
    content = {"schema": SCHEMA, "verb": verb, **result}
    text = json.dumps(_finite(content), indent=2, allow_nan=False)
    print(text.replace("\x7f", "\\u007f"))  # the one control character that JSON lets through


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def age(seconds: float) -> str:
    """In the largest unit of which there are at least two: 5400 -> "90 min"."""
    for size, unit in _AGES:
        if seconds >= 2 * size:
            return f"{seconds // size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def listing(names: Sequence[str], shown: int) -> str:
    """The first `shown` names, and how many more there are."""
    text = ", ".join(clean(name) for name in names[:shown])
    more = len(names) - shown
    return f"{text} and {more} more" if more > 0 else text


@contextmanager
def working() -> Iterator[Progress]:
    """Yields the function that shows on stderr which stage the work is in.

    A terminal gets one live line, anything else a line per stage. What the work itself prints, a
    model's own code included, goes to stderr too. Ctrl-C ends the block, at the next stage if not
    before.
    """
    with redirect_stdout(sys.stderr), interruptible() as check, _stages() as show:

        def progress(stage: str) -> None:
            check()
            show(stage)

        yield progress


@contextmanager
def _stages() -> Iterator[Progress]:
    console = err()
    if not console.is_terminal:
        yield _Lines()
        return
    from rich.progress import Progress as Bar
    from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

    text = TextColumn("{task.description}", markup=False)
    with Bar(SpinnerColumn(), text, TimeElapsedColumn(), console=console, transient=True) as bar:
        task = bar.add_task("starting", total=None)
        yield lambda stage: bar.update(task, description=clean(stage))


class _Lines:
    """Prints a line per stage; "proving on a" and "proving on b" are one stage."""

    def __init__(self) -> None:
        self.start = time.monotonic()
        self.stage = ""

    def __call__(self, stage: str) -> None:
        name = stage.partition(" on ")[0]
        if name != self.stage:
            self.stage = name
            seconds = time.monotonic() - self.start
            print(f"{seconds:6.1f} s  {clean(name)}", file=sys.stderr, flush=True)


@contextmanager
def interruptible() -> Iterator[Callable[[], None]]:
    """Ctrl-C ends the block with KeyboardInterrupt, even if code inside swallows the exception.

    torch's exporter, for one, may report it as a failed export. Yields a function that raises
    KeyboardInterrupt if one was swallowed so far: call it before anything is written.
    """
    interrupts: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        if _is_importing(frame):  # an exception in native start-up code may end the process
            retry = threading.Timer(RETRY_S, os.kill, (os.getpid(), number))
            retry.daemon = True
            retry.start()
            return
        interrupts.append(number)
        signal.default_int_handler(number, frame)

    def check() -> None:
        if interrupts:
            raise KeyboardInterrupt

    usual = signal.getsignal(signal.SIGINT)
    # A shell starts background work with the signal ignored, and only the main thread may set it.
    if usual is not signal.default_int_handler or not _in_main_thread():
        yield check
        return
    signal.signal(signal.SIGINT, remember)
    usual_hook = sys.unraisablehook
    sys.unraisablehook = _unless_interrupt(usual_hook)
    try:
        yield check
        check()
    except Exception:
        check()
        raise
    finally:
        sys.unraisablehook = usual_hook
        signal.signal(signal.SIGINT, usual)


def _unless_interrupt(usual: Hook) -> Hook:
    """Python prints what a destructor raises; a Ctrl-C that arrives in one is only remembered."""

    def hook(lost: sys.UnraisableHookArgs) -> None:
        if not isinstance(lost.exc_value, KeyboardInterrupt):
            usual(lost)

    return hook


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename == IMPORTING:
            return True
        frame = frame.f_back
    return False


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
