"""Folders and files that are written completely or not at all: written elsewhere, then renamed."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from flatfold.errors import OutputError

MOVE_AWAY = "choose another folder, or move these files away"


@contextmanager
def atomic_folder(destination: Path) -> Iterator[Path]:
    """An empty folder to write to, which replaces `destination` at the end of the `with` block.

    On any exception it is removed, with the parent folders created for it, and `destination` is
    left as it was. A process that is killed may leave a folder `.flatfold-*`, but never an
    incomplete destination.
    """
    created = [p for p in (destination.parent, *destination.parent.parents) if not p.exists()]
    token = secrets.token_hex(8)
    staging = destination.with_name(f".flatfold-{token}.new")
    old = destination.with_name(f".flatfold-{token}.old")
    done = False
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        staging.mkdir()
        yield staging
        _flush(staging)
        _swap(staging, destination, old)
        done = True
    finally:
        if old.exists() and not destination.exists():
            os.rename(old, destination)
        shutil.rmtree(staging, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
        if not done:
            _remove_empty(created)


@contextmanager
def atomic_files(folder: Path) -> Iterator[Path]:
    """An empty folder to write to, whose files move into `folder` at the end of the `with` block.

    They move in reverse order of their names, so that `<name>.data` is there before `<name>`.
    On any exception none is moved.
    """
    staging = folder / f".flatfold-{secrets.token_hex(8)}.new"
    try:
        staging.mkdir()
        yield staging
        _flush(staging)
        for entry in sorted(staging.iterdir(), reverse=True):
            os.replace(entry, folder / entry.name)
        _flush_entry(folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def os_errors_as_ours(
    destination: Path, kind: str = "folder that you may write to"
) -> Iterator[None]:
    """Raises any OSError in the block as an OutputError for `destination`."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"cannot write here: {error.strerror or error}",
            where=str(destination),
            hint=f"choose a {kind}, on a disk with space",
        ) from error


def refuse_foreign(folder: Path, known: Collection[str]) -> None:
    """Raises OutputError if `folder`, which is to be replaced, has files of other names."""
    foreign = sorted(entry.name for entry in folder.iterdir() if entry.name not in known)
    if foreign:
        raise OutputError(
            f"the folder holds files that flatfold did not write: {', '.join(foreign[:5])}",
            where=str(folder),
            hint=MOVE_AWAY,
        )


def probe_writable(destination: Path) -> None:
    """Raises OSError unless a folder can be created next to `destination`. Leaves none behind."""
    parents = (destination.parent, *destination.parent.parents)
    existing = next(parent for parent in parents if parent.exists())
    probe = existing / f".flatfold-{secrets.token_hex(8)}.probe"
    probe.mkdir()
    probe.rmdir()


def _swap(staging: Path, destination: Path, old: Path) -> None:
    if destination.exists():
        os.rename(destination, old)
    os.rename(staging, destination)
    _flush_entry(destination.parent)


def _flush(folder: Path) -> None:
    """Writes the content to disk, before a rename that could otherwise reach the disk first."""
    for entry in (*folder.iterdir(), folder):
        _flush_entry(entry)


def _flush_entry(path: Path) -> None:
    # Not every system can flush a folder.
    with suppress(OSError) if path.is_dir() else nullcontext():
        descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _remove_empty(folders: list[Path]) -> None:
    """Removes folders, innermost first, until one is not empty."""
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:
            return
