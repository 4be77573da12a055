"""The cache of engines: the key of an engine, the folder, and a slot that one process fills.

with slot(cache_dir, key, progress) as place:
    engine = place.engine             # None where it has to be built
    if engine is None:
        engine = build()
        place.store(engine)
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from flatfold.errors import FlatfoldError
from flatfold.system.progress import Progress
from flatfold.text import clean

if TYPE_CHECKING:
    import onnx_ir as ir

    from flatfold.backends import Backend, Engine
    from flatfold.backends.store import Cache
    from flatfold.frontend import Source

VARIABLE = "FLATFOLD_CACHE"
OFF = ""
WAITING = "waiting for another process that builds this engine"
WITHOUT = "going on without a cache of engines"

# The packages that decide the rewritten graph and its proof, whatever the target.
PACKAGES = ("numpy", "onnx", "onnx-ir", "onnxruntime", "onnxscript")
_SOURCE_FILES = (".py", ".json")

_log = logging.getLogger(__name__)


def key_of(source: Source, backend: Backend, options: Mapping[str, object]) -> str:
    """SHA-256, in hexadecimal, of everything that decides which engine is built.

    The model as exported, without the names of values between nodes; `options`, as JSON values;
    flatfold's own source files, the versions of packages, and the device.
    """
    from flatfold.system.host import versions

    packages = {*PACKAGES, *backend.packages}
    packages |= {"torch"} if source.module is not None else set()  # the module is the reference
    packages |= {"onnxsim"} if options.get("simplify") else set()
    content = {
        **options,
        "graph": graph_hash(source.model),
        "name": source.name,
        "shapes": sorted(source.shapes.items()),
        "reference": source.module is not None,
        "target": backend.name,
        "device": backend.device(),
        "flatfold": source_hash(),  # the version is in it
        "versions": versions(sorted(packages)),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def joined(keys: Sequence[str]) -> str:
    """One key for an engine that is chosen from several, each with a key of its own."""
    return keys[0] if len(keys) == 1 else hashlib.sha256("".join(keys).encode()).hexdigest()


def graph_hash(model: ir.Model) -> str:
    """SHA-256 of a whole model, comments included, without the names of values between nodes."""
    import onnx_ir as ir

    from flatfold.backends.store import structural_copy

    content = ir.to_proto(structural_copy(model)).SerializeToString(deterministic=True)
    return hashlib.sha256(content).hexdigest()


@cache
def source_hash() -> str:
    """SHA-256 of flatfold's own source files: after a change of a rewrite, engines are rebuilt."""
    root = Path(__file__).parent
    digest = hashlib.sha256()
    for folder, subfolders, names in os.walk(root, followlinks=True):
        subfolders.sort()
        for name in sorted(name for name in names if name.endswith(_SOURCE_FILES)):
            path = Path(folder, name)
            content = path.read_bytes()
            digest.update(f"{path.relative_to(root).as_posix()} {len(content)}\n".encode())
            digest.update(content)
    return digest.hexdigest()


def cache_folder(cache_dir: str | os.PathLike[str] | None = None) -> Path | None:
    """`cache_dir`, else $FLATFOLD_CACHE, else the user's own folder; None if the cache is off.

    An empty name switches the cache off.
    """
    name = os.environ.get(VARIABLE) if cache_dir is None else os.fspath(cache_dir)
    if name is None:
        from platformdirs import user_cache_path

        return user_cache_path("flatfold", appauthor=False)
    return None if name == OFF else Path(os.path.expanduser(name))  # which never raises


@dataclass(frozen=True)
class Slot:
    """Where one engine is kept. `engine` is None where it has to be built and stored."""

    engine: Engine | None = None
    store: Callable[[Engine], None] = lambda engine: None


@contextmanager
def slot(
    cache_dir: str | os.PathLike[str] | None,
    key: Callable[[], str],
    progress: Progress,
) -> Iterator[Slot]:
    """The slot of the engine with this key, locked while it is empty.

    One process builds the engine, others that want the same one wait. A cache that cannot be used
    is logged once, and costs nothing but time.
    """
    cache = _open(cache_dir)
    if cache is None:
        yield Slot()
        return
    progress("looking in the cache")
    digest = key()
    engine = _read(cache, digest)
    if engine is not None:
        yield Slot(engine)
        return
    try:
        lock = cache.lock(digest, lambda: progress(WAITING))
    except (OSError, NotImplementedError) as error:
        _warn(cache.root, error)
        yield Slot()
        return

    def store(built: Engine) -> None:
        progress("storing")
        try:
            cache.put(digest, built)
        except FlatfoldError as error:
            _warn(cache.root, error)

    with lock:
        yield Slot(_read(cache, digest, repair=True), store)


def _open(cache_dir: str | os.PathLike[str] | None) -> Cache | None:
    """The cache, or None where it is off or cannot be used, which is logged."""
    from flatfold.backends.store import Cache

    root = cache_folder(cache_dir)
    if root is None:
        return None
    cache = Cache(root)
    try:
        cache.open()
    except (FlatfoldError, OSError) as error:
        _warn(root, error)
        return None
    return cache


def _read(cache: Cache, key: str, repair: bool = False) -> Engine | None:
    """The engine of `key`; None if there is none, or it is damaged.

    `repair`, with the lock held, removes a damaged one; without it, it may be being replaced.
    """
    try:
        return cache.find(key)
    except (FlatfoldError, OSError) as error:
        if repair:
            _log.warning("%s; building it again", _cause(error))
            with suppress(OSError):
                cache.remove(key)
    return None


def _warn(root: Path, error: Exception) -> None:
    _log.warning("%s in %s: %s", WITHOUT, clean(str(root)), _cause(error))


def _cause(error: Exception) -> str:
    return clean(error.cause if isinstance(error, FlatfoldError) else str(error))
