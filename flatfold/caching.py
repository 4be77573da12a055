"""The cache of engines: where it is, and what is done where it cannot be used."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from flatfold.errors import FlatfoldError
from flatfold.escaping import clean

if TYPE_CHECKING:
    from flatfold.backends.base import Engine
    from flatfold.backends.cache import Cache

VARIABLE = "FLATFOLD_CACHE"
OFF = ""
WAITING = "waiting for another process that builds this engine"
WITHOUT = "going on without a cache of engines"

_log = logging.getLogger(__name__)


def place(cache_dir: str | os.PathLike[str] | None = None) -> Path | None:
    """The folder of the cache: `cache_dir`, $FLATFOLD_CACHE, or the user's own; None if it is off.

    An empty name switches it off.
    """
    chosen = os.environ.get(VARIABLE) if cache_dir is None else os.fspath(cache_dir)
    if chosen is None:
        from platformdirs import user_cache_path

        return user_cache_path("flatfold", appauthor=False)
    return None if chosen == OFF else Path(os.path.expanduser(chosen))  # which never raises


def through_cache(
    cache_dir: str | os.PathLike[str] | None,
    key_of: Callable[[], str],
    make: Callable[[], Engine],
    progress: Callable[[str], None],
) -> tuple[Engine, bool]:
    """The engine of this key, and whether it came from the cache; else `make` makes it.

    One process makes it, others that want the same wait. Whatever is wrong with the cache is
    logged, once, and costs time only.
    """
    cache = _opened(cache_dir)
    if cache is None:
        return make(), False
    progress("looking in the cache")
    key = key_of()
    found = _found(cache, key)
    if found is not None:
        return found, True
    try:
        lock = cache.lock(key, lambda: progress(WAITING))
    except (OSError, NotImplementedError) as error:
        _warn(cache.root, error)
        return make(), False
    with lock:
        found = _found(cache, key, repairing=True)
        if found is not None:
            return found, True
        engine = make()
        progress("storing")
        try:
            cache.put(key, engine)
        except FlatfoldError as error:
            _warn(cache.root, error)
    return engine, False


def _opened(cache_dir: str | os.PathLike[str] | None) -> Cache | None:
    from flatfold.backends.cache import Cache

    root = place(cache_dir)
    if root is None:
        return None
    cache = Cache(root)
    try:
        cache.open()
    except (FlatfoldError, OSError) as error:
        _warn(root, error)
        return None
    return cache


def _found(cache: Cache, key: str, repairing: bool = False) -> Engine | None:
    """None for what is damaged too. Without the lock, another process may be replacing it."""
    try:
        return cache.find(key)
    except (FlatfoldError, OSError) as error:
        if repairing:
            _log.warning("%s; building it again", _cause(error))
            with suppress(OSError):
                cache.remove(key)
    return None


def _warn(root: Path, error: Exception) -> None:
    _log.warning("%s in %s: %s", WITHOUT, clean(str(root)), _cause(error))


def _cause(error: Exception) -> str:
    return clean(error.cause if isinstance(error, FlatfoldError) else str(error))
