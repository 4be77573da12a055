"""The cache of engines: where it is, and what is done where it cannot be used."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from flatfold.errors import FlatfoldError
from flatfold.system.progress import Progress
from flatfold.text import clean

if TYPE_CHECKING:
    import onnx_ir as ir

    from flatfold.backends.base import Backend, Engine
    from flatfold.backends.store.cache import Cache
    from flatfold.compiler import Choice
    from flatfold.frontend.source import Source


# What makes the rewritten graph and the proof, whatever the target.
PACKAGES = ("numpy", "onnx", "onnx-ir", "onnxruntime", "onnxscript")
_SOURCES = (".py", ".json")


def key_of(
    source: Source, choice: Choice, backend: Backend, engine_options: Mapping[str, object]
) -> str:
    """SHA-256, in hexadecimal, of everything that decides what is built.

    The model as exported, with the names of values between nodes left out; what was chosen; and
    who builds it: our own source files, the packages, and the device.
    """
    from flatfold.system.host import versions

    packages = {*PACKAGES, *backend.packages}
    packages |= {"torch"} if source.module is not None else set()  # it is the reference then
    packages |= {"onnxsim"} if choice.simplify else set()
    content = {
        "graph": graph_hash(source.model),
        "name": source.name,
        "reference": source.module is not None,
        "target": backend.name,
        "device": backend.device(),
        "options": sorted((str(name), repr(value)) for name, value in engine_options.items()),
        "passes": [rewrite.name for rewrite in choice.rewrites()],
        "verify": choice.verify,
        "simplify": choice.simplify,
        "flatfold": source_hash(),  # the version is in it
        "versions": versions(sorted(packages)),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def graph_hash(model: ir.Model) -> str:
    """SHA-256 of a model, comments and all, but for what values between nodes are called."""
    import onnx_ir as ir

    from flatfold.backends.store.fingerprint import skeleton

    content = ir.to_proto(skeleton(model)).SerializeToString(deterministic=True)
    return hashlib.sha256(content).hexdigest()


@cache
def source_hash() -> str:
    """SHA-256 of flatfold's own source files: a changed rewrite never serves what the old made."""
    root = Path(__file__).parent
    digest = hashlib.sha256()
    for folder, below, names in os.walk(root, followlinks=True):
        below.sort()
        for name in sorted(name for name in names if name.endswith(_SOURCES)):
            path = Path(folder, name)
            content = path.read_bytes()
            digest.update(f"{path.relative_to(root).as_posix()} {len(content)}\n".encode())
            digest.update(content)
    return digest.hexdigest()


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
    progress: Progress,
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
    from flatfold.backends.store.cache import Cache

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
