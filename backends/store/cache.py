"""The cache of engines: a folder of bundles, each under the key of the build that it came from.

    engines/<key[:2]>/<key>/    a bundle whose record has its key, so that a swapped one is detected
    locks/<key>.lock            held by the process that builds the engine; readers take no lock

A bundle is written completely or not at all, so a process may be killed at any time. The time of
the manifest file is when the engine was last used, that of the graph file when it was built.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flatfold.backends.store import bundle
from flatfold.backends.store.files import WRITABLE, damaged, refuse_writable, verify
from flatfold.errors import InputError
from flatfold.system.atomic import os_errors_as_ours

if TYPE_CHECKING:
    from flatfold.backends.base import Engine


KEY = "cache_key"
STALE_S = 3600.0
_POLL_S = 1.0
_KEY = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Entry:
    """An engine in the cache; `model` and `target` are "" if its manifest is damaged.

    `bytes`: its size. `built`, `used`: when it was built and last used, in seconds since 1970.
    """

    key: str
    folder: Path
    model: str
    target: str
    bytes: int
    built: float
    used: float

    def damage(self) -> str:
        """What is wrong with its files, after computing their hashes; "" if they are right."""
        try:
            for place in (self.folder.parent, self.folder):
                _refuse_shared(place)
            manifest = _manifest(self.folder, self.key)
            for name in sorted(manifest["files"]):
                verify(self.folder, name, manifest)
            refuse_writable(self.folder, (bundle.MANIFEST, *manifest["files"]))
        except InputError as error:
            return error.cause
        return ""


class Cache:
    """The cache of engines in the folder `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._engines, self._locks = root / "engines", root / "locks"
        self._folders = (root, self._engines, self._locks)

    def open(self) -> None:
        """Creates the folders, with access for their owner only.

        Raises OSError where they cannot be created, and InputError as `check` does.
        """
        for folder in self._folders:
            _make(folder)
        self.check()

    def check(self) -> None:
        """Raises InputError where other users could have written engines, which would be run."""
        for folder in self._folders:
            if folder.exists():
                _refuse_shared(folder)

    def find(self, key: str) -> Engine | None:
        """The engine of this key, with all files checked; None if there is none.

        Its folder can be removed then, except where weights exceed 1 GiB. Raises InputError where
        it is damaged, and what loading raises.
        """
        folder = self._folder(key)
        if not folder.exists():
            return None
        for place in (folder.parent, folder):
            _refuse_shared(place)
        _manifest(folder, key)
        engine = bundle.load(folder)
        engine.hold()
        del engine.manifest[KEY]
        with suppress(OSError):  # a read-only cache does not record when an engine was used
            os.utime(folder / bundle.MANIFEST)
        return engine

    def put(self, key: str, engine: Engine) -> None:
        """Saves `engine` under `key`, and calls `reap`. Raises OutputError."""
        folder = self._folder(key)
        with os_errors_as_ours(folder):
            self.reap()
            _make(folder.parent)
        engine.manifest[KEY] = key
        try:
            bundle.save(engine, folder)
        finally:
            del engine.manifest[KEY]

    def lock(self, key: str, waiting: Callable[[], None]) -> AbstractContextManager[Any]:
        """The lock of a key, held inside a `with` block; the end of the process releases it, too.

        `waiting` is called again and again while another process holds it. Raises OSError or
        NotImplementedError where files cannot be locked.
        """
        from filelock import FileLock, Timeout

        lock = FileLock(self._locks / f"{key}.lock", mode=0o600)
        timeout = 0.0
        while True:
            try:
                return lock.acquire(timeout=timeout)
            except Timeout:
                waiting()
                timeout = _POLL_S

    def entries(self) -> list[Entry]:
        """The engines in the cache, least recently used first."""
        folders = [
            folder
            for folder in self._engines.glob("??/*")
            if _KEY.fullmatch(folder.name) and folder.parent.name == folder.name[:2]
        ]
        entries = (_entry(folder) for folder in folders)
        return sorted((e for e in entries if e is not None), key=lambda e: (e.used, e.key))

    def remove(self, key: str) -> None:
        """Removes the engine of `key` in one step. Raises OSError."""
        folder = self._folder(key)
        renamed = folder.with_name(f".flatfold-{secrets.token_hex(8)}.old")
        with suppress(FileNotFoundError):  # another process has removed it
            os.rename(folder, renamed)
        shutil.rmtree(renamed, ignore_errors=True)

    def reap(self) -> None:
        """Removes folders that a process was writing or removing when it was killed."""
        for left in self._engines.glob("??/.flatfold-*"):
            with suppress(OSError):
                if time.time() - left.stat().st_mtime > STALE_S:
                    shutil.rmtree(left, ignore_errors=True)

    def _folder(self, key: str) -> Path:
        return self._engines / key[:2] / key


def _refuse_shared(folder: Path) -> None:
    """Raises InputError for a folder of another user, or one that every user can write to."""
    try:
        status = folder.stat()
    except OSError as error:
        raise damaged(folder, folder.name, error.strerror or str(error)) from error
    if hasattr(os, "geteuid") and status.st_uid != os.geteuid():
        raise InputError("the cache of engines belongs to another user", where=str(folder))
    if os.name == "posix" and status.st_mode & WRITABLE:
        hint = f"chmod -R o-w {folder}, if you trust what is in it"
        cause = f"anybody may write to the cache of engines: {folder.name} is world-writable"
        raise InputError(cause, where=str(folder), hint=hint)


def _manifest(folder: Path, key: str) -> dict[str, Any]:
    """The manifest of an engine. Raises InputError where it is that of another key."""
    manifest = bundle.read_manifest(folder)
    if manifest["record"].get(KEY) != key:
        raise damaged(folder, bundle.MANIFEST, "it is that of another engine")
    return manifest


def _entry(folder: Path) -> Entry | None:
    """The entry of a folder; None if another process is removing it."""
    try:
        files = {path.name: path.stat() for path in folder.iterdir()}
        built = used = folder.stat().st_mtime
    except OSError:
        return None
    if bundle.MODEL in files:
        built = files[bundle.MODEL].st_mtime
    if bundle.MANIFEST in files:
        used = files[bundle.MANIFEST].st_mtime
    size = sum(status.st_size for status in files.values() if stat.S_ISREG(status.st_mode))
    try:
        manifest = _manifest(folder, folder.name)
    except InputError:
        return Entry(folder.name, folder, "", "", size, built, used)
    model, target = str(manifest["record"].get("name", "")), str(manifest["target"])
    return Entry(folder.name, folder, model, target, size, built, used)


def _make(folder: Path) -> None:
    """Creates a folder and missing parents, for their owner only, whatever the umask is."""
    for missing in reversed([p for p in (folder, *folder.parents) if not p.exists()]):
        missing.mkdir(mode=0o700, exist_ok=True)
    if not folder.is_dir():
        raise NotADirectoryError(20, "it is not a folder", str(folder))
