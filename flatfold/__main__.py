"""The command line: `flatfold`, or `python -m flatfold`."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from flatfold import __version__
from flatfold.cli.cache import app as cache
from flatfold.cli.catalogue import models, targets
from flatfold.cli.compare import compare
from flatfold.cli.compile import compile
from flatfold.cli.exit_codes import Escaping, exit_code_of
from flatfold.cli.explain import explain
from flatfold.cli.inspect import inspect
from flatfold.cli.reduce import reduce
from flatfold.cli.report import report
from flatfold.cli.verify import verify

EPILOG = "Exit codes: 0 ok, 1 internal error, 2 usage, 3 input rejected, 4 not equivalent, "
EPILOG += "5 slower than the baseline, 6 target unavailable, 7 inconclusive, 8 build failed, "
EPILOG += "130 interrupted."

app = typer.Typer(
    name="flatfold",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=EPILOG,
)
for verb in (compile, compare, report, verify, reduce, explain, models, targets, inspect):
    app.command()(verb)
app.add_typer(cache, name="cache")


def _print_version(requested: bool) -> None:
    if requested:
        print(f"flatfold {__version__}")
        raise typer.Exit


@app.callback()
def flatfold(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Compile training-form convolutional networks into the fastest engine that provably computes
    the same function."""


def run(args: Sequence[str]) -> int:
    """The exit code of the command line `args`; never raises."""
    arguments = list(args)
    return exit_code_of(
        lambda: app(args=arguments, prog_name="flatfold", standalone_mode=False), arguments
    )


def main() -> None:
    for stream in (sys.stdout, sys.stderr):
        # A name that the terminal's encoding lacks is no reason to fail.
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(Escaping())
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
