"""What goes where: results on stdout, everything for people on stderr."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING, Any

from flatfold.cli.interrupts import interruptible
from flatfold.escaping import clean

if TYPE_CHECKING:
    from rich.console import Console

SCHEMA = 1
PIPE_WIDTH = 160  # columns of a table that no terminal limits

Progress = Callable[[str], None]


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
