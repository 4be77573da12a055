"""What the command line sets on an engine, in the words of each target.

A target without a line here takes no --threads, and is timed with its default options.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import typer

_THREADS = {"ort-cuda": "intra_threads", "ort-cpu": "intra_threads", "openvino": "threads"}

# Two engines in one process take cores from each other while their idle threads wait actively.
_QUIET: Mapping[str, Mapping[str, object]] = {
    "ort-cuda": {"spinning": False},
    "ort-cpu": {"spinning": False},
}


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


def quiet(target: str, options: Mapping[str, object]) -> dict[str, object]:
    """`options` for an engine that is timed beside another one."""
    return {**options, **_QUIET.get(target, {})}
