"""Ctrl-C, kept through libraries that turn it into an error of their own or drop it."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

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
