"""What the command line sets on an engine, in the words of each target.

A target without a line here takes no --threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import typer

_THREADS = {"ort-cuda": "intra_threads", "ort-cpu": "intra_threads", "openvino": "threads"}


def engine_options(target: str, threads: int | None, written: Sequence[str] = ()) -> dict[str, Any]:
    """The options of `target` for what was asked for on the command line."""
    from flatfold.backends import load_backend
    from flatfold.backends.options import read_options

    found = read_options(load_backend(target).options, written, target)
    if threads is None:
        return found
    if target not in _THREADS:
        raise typer.BadParameter(f"target {target} has no number of threads to set")
    return {_THREADS[target]: threads, **found}
