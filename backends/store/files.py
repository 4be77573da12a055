"""Reading the files of a bundle: links, pipes and files that are too large are refused."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from flatfold.errors import InputError

WRITABLE = stat.S_IWOTH  # the permission of every user to write
_BLOCK = 1 << 20
_IN_MEMORY = 2**31  # bytes; only files of weights are larger
_LARGEST = 2**36  # bytes of any file


def refuse_writable(folder: Path, names: Iterable[str]) -> None:
    """Raises InputError where every user can write to the folder or a file: engines are code.

    Does nothing on systems without such permissions.
    """
    for path in (folder, *(folder / name for name in names)):
        try:
            mode = path.stat().st_mode
        except OSError as error:
            raise damaged(folder, path.name, error.strerror or str(error)) from error
        if os.name == "posix" and mode & WRITABLE:
            raise InputError(
                f"anybody may change this engine: {path.name or path} is world-writable",
                where=str(folder),
                hint=f"chmod -R o-w {folder}, if you trust what is in it",
            )


def close_to_others(folder: Path) -> None:
    """Removes the permission of every user to write, which a umask of 0 would give."""
    for path in (folder, *folder.iterdir()):
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & WRITABLE:
            path.chmod(mode & ~WRITABLE)


def verify(folder: Path, name: str, manifest: Mapping[str, Any]) -> None:
    """Raises InputError unless the file has the SHA-256 that is in the manifest."""
    if sha256(folder / name) != manifest["files"][name]:
        raise damaged(folder, name, "its SHA-256 is not the one in the manifest")


def read_verified(folder: Path, name: str, manifest: Mapping[str, Any]) -> bytes:
    """The content of a file, after comparing its SHA-256 with the manifest; opened only once."""
    content = read(folder / name)
    if hashlib.sha256(content).hexdigest() != manifest["files"].get(name):
        raise damaged(folder, name, "its SHA-256 is not the one in the manifest")
    return content


def read(path: Path, most: int = _IN_MEMORY) -> bytes:
    """The content of a regular file of up to `most` bytes."""
    with _open_regular(path, most) as file:
        return file.read(most)


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with _open_regular(path, _LARGEST) as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def damaged(folder: Path, name: str, reason: str) -> InputError:
    """The error for a file of a bundle that cannot be used, with the reason."""
    return InputError(
        f"the saved engine is damaged: {name}: {reason}",
        where=str(folder),
        hint="compile the model again, or copy the folder again",
    )


def _open_regular(path: Path, most: int) -> BinaryIO:
    """Opens a regular file. Raises InputError for a link of either kind or a pipe."""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        _require_plain(path, os.stat(path, follow_symlinks=False), most)
        descriptor = os.open(path, flags | getattr(os, "O_BINARY", 0))
    except OSError as error:
        raise damaged(path.parent, path.name, error.strerror or str(error)) from error
    try:
        _require_plain(path, os.fstat(descriptor), most)  # it may have been replaced
    except InputError:
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, "rb")


def _require_plain(path: Path, status: os.stat_result, most: int) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise damaged(path.parent, path.name, "it is not a regular file")
    if status.st_nlink != 1:
        raise damaged(path.parent, path.name, "it is a hard link")
    if status.st_size > most:
        reason = f"expected {most} bytes at most, found {status.st_size}"
        raise damaged(path.parent, path.name, reason)
