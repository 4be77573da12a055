"""What the command line sets on an engine, in the words of each target.

A target whose backend names no option for them takes no --threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import typer


def engine_options(target: str, threads: int | None, written: Sequence[str] = ()) -> dict[str, Any]:
    """The options of `target` for what was asked for on the command line."""
    from flatfold.backends import load_backend
    from flatfold.backends.options import read_options

    backend = load_backend(target)
    found = read_options(backend.options, written, target)
    if threads is None:
        return found
    if not backend.threads:
        raise typer.BadParameter(f"target {target} has no number of threads to set")
    return {backend.threads: threads, **found}
