"""The exit code and the message for every way in which a verb can end."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Callable, Sequence

from flatfold.errors import FlatfoldError
from flatfold.text import clean, one_line

OK, INTERNAL, USAGE, INTERRUPTED = 0, 1, 2, 130


def exit_code_of(run: Callable[[], object], args: Sequence[str]) -> int:
    """The exit code of `run`, a verb called with `args`; messages go to stderr.

    A verb returns None, or its exit code. Nothing escapes, and no traceback without --debug.
    """
    try:
        code = run()
        sys.stdout.flush()
    except KeyboardInterrupt:
        code = INTERRUPTED
    except BrokenPipeError:
        _close_stdout()
        return INTERNAL
    except FlatfoldError as error:
        code = error.exit_code
        _show(str(error), args)
    except Exception as error:
        code = _unexpected(error, args)
    if code == INTERRUPTED:
        print("interrupted", file=sys.stderr)
    return code if isinstance(code, int) else OK


class Escaping(logging.Formatter):
    """Log messages on one line, with control characters escaped."""

    def format(self, record: logging.LogRecord) -> str:
        return one_line(super().format(record))


def _unexpected(error: Exception, args: Sequence[str]) -> int:
    message = getattr(error, "format_message", None)  # what Typer raises for a wrong command line
    if message is not None:
        _show(f"error[USAGE]: {one_line(message())}\n  try: {_help(error)}", args)
        return USAGE
    if type(error).__name__ == "Abort":  # how older versions of Typer pass on Ctrl-C
        return INTERRUPTED
    first = str(error).strip().partition("\n")[0]
    text = one_line(f"{type(error).__name__}: {first}" if first else type(error).__name__)
    _show(f"error[INTERNAL]: {text}; run again with --debug to see where, and report it", args)
    return INTERNAL


def _show(message: str, args: Sequence[str]) -> None:
    if "--debug" in args:
        for line in traceback.format_exc().splitlines():
            print(clean(line), file=sys.stderr)
    print(message, file=sys.stderr)


def _help(error: Exception) -> str:
    path = getattr(getattr(error, "ctx", None), "command_path", "flatfold")
    return f"{path} --help"


def _close_stdout() -> None:
    """The reader of stdout is gone; without this, Python prints an error when it exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
