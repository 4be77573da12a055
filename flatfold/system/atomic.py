"""Folders that appear complete or not at all: written aside, then renamed into place."""

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
    """An empty folder beside `destination` that takes its place when the block ends well.

    On any exception the staging folder is removed, with the parents made for it, and `destination`
    is as it was. A process killed outright may leave a `.flatfold-*` folder, never half a
    destination.
    """
    made = [p for p in (destination.parent, *destination.parent.parents) if not p.exists()]
    token = secrets.token_hex(8)
    staging = destination.with_name(f".flatfold-{token}.new")
    aside = destination.with_name(f".flatfold-{token}.old")
    done = False
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        staging.mkdir()
        yield staging
        _flush(staging)
        _swap(staging, destination, aside)
        done = True
    finally:
        if aside.exists() and not destination.exists():
            os.rename(aside, destination)
        shutil.rmtree(staging, ignore_errors=True)
        shutil.rmtree(aside, ignore_errors=True)
        if not done:
            _remove_empty(made)


@contextmanager
def atomic_files(folder: Path) -> Iterator[Path]:
    """An empty folder inside `folder`, whose files move up when the block ends well.

    The last of them by name first: what refers to `<name>.data` appears after it.
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
    """What the system says of a place that cannot be written becomes OutputError."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"cannot write here: {error.strerror or error}",
            where=str(destination),
            hint=f"choose a {kind}, on a disk with space",
        ) from error


def refuse_foreign(folder: Path, known: Collection[str]) -> None:
    """Saving replaces `folder`: OutputError if it holds anything but files of these names."""
    foreign = sorted(entry.name for entry in folder.iterdir() if entry.name not in known)
    if foreign:
        raise OutputError(
            f"the folder holds files that flatfold did not write: {', '.join(foreign[:5])}",
            where=str(folder),
            hint=MOVE_AWAY,
        )


def probe_writable(destination: Path) -> None:
    """Raises OSError unless a folder can be made beside `destination`. Leaves nothing behind."""
    parents = (destination.parent, *destination.parent.parents)
    existing = next(parent for parent in parents if parent.exists())
    probe = existing / f".flatfold-{secrets.token_hex(8)}.probe"
    probe.mkdir()
    probe.rmdir()


def _swap(staging: Path, destination: Path, aside: Path) -> None:
    if destination.exists():
        os.rename(destination, aside)
    os.rename(staging, destination)
    _flush_entry(destination.parent)


def _flush(folder: Path) -> None:
    """Makes the content durable first: a rename that outlives its content is a torn write."""
    for entry in (*folder.iterdir(), folder):
        _flush_entry(entry)


def _flush_entry(path: Path) -> None:
    # Not every system can open or flush a folder; there its entries reach the disk in their time.
    with suppress(OSError) if path.is_dir() else nullcontext():
        descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _remove_empty(folders: list[Path]) -> None:
    """Innermost first; one that somebody else has used meanwhile stays."""
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:
            return
