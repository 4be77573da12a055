"""What goes where: results on stdout, everything for people on stderr."""

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


_AGES = ((86400, "d"), (3600, "h"), (60, "min"))


def age(seconds: float) -> str:
    """In the largest unit of which there are two: 5400 -> "90 min"."""
    for size, unit in _AGES:
        if seconds >= 2 * size:
            return f"{seconds // size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def listing(names: Sequence[str], shown: int) -> str:
    """The first `shown` names, and how many more there are."""
    text = ", ".join(clean(name) for name in names[:shown])
    more = len(names) - shown
    return f"{text} and {more} more" if more > 0 else text


SCHEMA = 1
PIPE_WIDTH = 160  # columns of a table that no terminal limits


def out() -> Console:
    """The console for results. Prints text as it is: no markup, no highlighting, no emoji."""
    return _console(stderr=False)


def err() -> Console:
    """The console for people."""
    return _console(stderr=True)


def _console(stderr: bool) -> Console:
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else PIPE_WIDTH
    return Console(stderr=stderr, markup=False, highlight=False, emoji=False, width=width)


def emit(verb: str, result: Mapping[str, Any]) -> None:
    """One JSON object on stdout; numbers that JSON does not have become null."""
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


@contextmanager
def working() -> Iterator[Progress]:
    """Calls of the value yielded name the stage the work is in, which shows on stderr.

    A terminal gets one live line, anything else a line per stage. What the work itself prints, a
    model's own code included, goes to stderr too. Ctrl-C ends the block, at the next stage if not
    before.
    """
    with redirect_stdout(sys.stderr), interruptible() as check, _shown() as show:

        def progress(stage: str) -> None:
            check()
            show(stage)

        yield progress


@contextmanager
def _shown() -> Iterator[Progress]:
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
    """A line per stage; "proving on ..." is one stage, whatever it is on."""

    def __init__(self) -> None:
        self.start = time.monotonic()
        self.stage = ""

    def __call__(self, stage: str) -> None:
        name = stage.partition(" on ")[0]
        if name != self.stage:
            self.stage = name
            seconds = time.monotonic() - self.start
            print(f"{seconds:6.1f} s  {clean(name)}", file=sys.stderr, flush=True)


AGAIN = 0.05  # seconds
IMPORTING = "<frozen importlib._bootstrap>"

Hook = Callable[["sys.UnraisableHookArgs"], object]


@contextmanager
def interruptible() -> Iterator[Callable[[], None]]:
    """Ctrl-C ends the block with KeyboardInterrupt, whatever becomes of the one raised inside.

    torch's exporter, for one, may report it as a failed export. The value yielded raises
    KeyboardInterrupt if one was lost so far: call it before anything is written.
    """
    seen: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        if _is_importing(frame):  # native code being set up may end the process for an exception
            again = threading.Timer(AGAIN, os.kill, (os.getpid(), number))
            again.daemon = True
            again.start()
            return
        seen.append(number)
        signal.default_int_handler(number, frame)

    def check() -> None:
        if seen:
            raise KeyboardInterrupt

    usual = signal.getsignal(signal.SIGINT)
    # A shell starts background work with the signal ignored, and only the main thread may ask.
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
    """Python prints what a destructor raised; a Ctrl-C that arrived in one is only remembered."""

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
