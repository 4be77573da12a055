"""flatfold cache: list the engines that were built before, remove some, check their files."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flatfold.cli import options
from flatfold.cli.console import age, emit, out
from flatfold.text import clean, count

if TYPE_CHECKING:
    from flatfold.backends.store import Cache, Entry

DAMAGED = 3
SHOWN = 12  # characters of a key
_AGE = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([kMGT]?)(i?)B", re.IGNORECASE)
_PREFIXES = ("", "k", "m", "g", "t")

app = typer.Typer(help="List, remove or check the engines that were built before.")


def _seconds(text: str) -> float:
    match = _AGE.fullmatch(text)
    if not match:
        raise typer.BadParameter(f"expected a number and s, m, h, d or w, found {text!r}")
    return float(match[1]) * _SECONDS[match[2]]


def _bytes(text: str) -> float:
    match = _SIZE.fullmatch(text)
    if not match:
        raise typer.BadParameter(f"expected a size such as 5GB or 500MiB, found {text!r}")
    unit = 1024 if match[3] else 1000
    return float(match[1]) * float(unit ** _PREFIXES.index(match[2].lower()))


OlderThan = Annotated[
    float | None,
    typer.Option(parser=_seconds, metavar="AGE", help="Not used for so long, such as 30d or 12h."),
]
MaxSize = Annotated[
    float | None,
    typer.Option(
        parser=_bytes, metavar="SIZE", help="The least recently used, until no more is left: 5GB."
    ),
]
All = Annotated[bool, typer.Option("--all", help="Everything.")]
Repair = Annotated[bool, typer.Option("--repair", help="Remove what is damaged.")]


@app.command("list")
def show(
    cache_dir: options.CacheDir = None, json: options.Json = False, debug: options.Debug = False
) -> None:
    """List the engines, least recently used first."""
    cache, entries = _open(cache_dir)
    if json:
        emit("cache list", {**_summary(cache, entries), "entries": [_row(e) for e in entries]})
    elif not _is_empty(cache, entries):
        _table(entries)


@app.command()
def prune(
    older_than: OlderThan = None,
    max_size: MaxSize = None,
    all_of_them: All = False,
    cache_dir: options.CacheDir = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Remove engines; compiling again builds them again."""
    if older_than is None and max_size is None and not all_of_them:
        raise typer.BadParameter("say what to remove: --older-than, --max-size or --all")
    cache, entries = _open(cache_dir)
    removed = list(entries) if all_of_them else _to_remove(entries, older_than, max_size)
    _remove(cache, removed)
    left = [entry for entry in entries if entry not in removed]
    if json:
        change = {"removed": [entry.key for entry in removed], "freed": _total(removed)}
        emit("cache prune", {**_summary(cache, left), **change})
    elif not _is_empty(cache, entries):
        out().print(f"removed {_engines(removed)}; left {_engines(left)}")


@app.command()
def verify(
    repair: Repair = False,
    cache_dir: options.CacheDir = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> int:
    """Check every file of every engine; exit code 3 if one is damaged and stays."""
    cache, entries = _open(cache_dir)
    if cache is not None:
        cache.check()
    damage = {entry: text for entry in entries if (text := entry.damage())}
    if repair:
        _remove(cache, damage)
    if json:
        rows = [{**_row(entry), "damage": damage.get(entry, "")} for entry in entries]
        verdict = {"sound": not damage, "repaired": bool(damage and repair), "entries": rows}
        emit("cache verify", {**_summary(cache, entries), **verdict})
    elif not _is_empty(cache, entries):
        for entry, text in damage.items():
            out().print(f"{entry.key[:SHOWN]}  {clean(entry.model)}  {clean(text)}", soft_wrap=True)
        if damage:
            end = ", removed" if repair else "; --repair removes them"
            out().print(f"damaged: {_engines(damage)} of {_engines(entries)}{end}")
        else:
            out().print(f"sound: {_engines(entries)}")
    return DAMAGED if damage and not repair else 0


def _open(cache_dir: str | None) -> tuple[Cache | None, list[Entry]]:
    """The cache and its engines; None where the cache is off."""
    from flatfold.backends.store import Cache
    from flatfold.engine_cache import cache_folder

    root = cache_folder(cache_dir)
    if root is None:
        return None, []
    cache = Cache(root)
    return cache, cache.entries()


def _to_remove(
    entries: Sequence[Entry], older_than: float | None, max_size: float | None
) -> list[Entry]:
    """The engines to remove; `entries` are least recently used first, and those go first."""
    now = time.time()
    removed = [e for e in entries if older_than is not None and now - e.used > older_than]
    left = [entry for entry in entries if entry not in removed]
    while max_size is not None and _total(left) > max_size:
        removed.append(left.pop(0))
    return removed


def _remove(cache: Cache | None, entries: Iterable[Entry]) -> None:
    from flatfold.system.atomic import os_errors_as_ours

    if cache is not None:
        with os_errors_as_ours(cache.root):
            cache.reap()
            for entry in entries:
                cache.remove(entry.key)


def _is_empty(cache: Cache | None, entries: Sequence[Entry]) -> bool:
    """Whether there are no engines; if so, prints why."""
    if cache is None:
        out().print("the cache is off")
    elif not entries:
        out().print(f"the cache is empty: {clean(str(cache.root))}", soft_wrap=True)
    return not entries


def _summary(cache: Cache | None, entries: Sequence[Entry]) -> dict[str, Any]:
    return {"folder": str(cache.root) if cache is not None else None, "bytes": _total(entries)}


def _row(entry: Entry) -> dict[str, Any]:
    return {
        "key": entry.key,
        "model": entry.model,
        "target": entry.target,
        "bytes": entry.bytes,
        "built": entry.built,
        "used": entry.used,
    }


def _table(entries: Sequence[Entry]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("key", "model", "target", "size", "built", "last used"):
        table.add_column(column, justify="right" if column == "size" else "left")
    now = time.time()
    for entry in entries:
        known = (clean(entry.model), clean(entry.target)) if entry.target else ("damaged", "")
        times = (f"{age(now - when)} ago" for when in (entry.built, entry.used))
        table.add_row(entry.key[:SHOWN], *known, f"{count(entry.bytes)}B", *times)
    out().print(table)


def _total(entries: Iterable[Entry]) -> int:
    return sum(entry.bytes for entry in entries)


def _engines(entries: Iterable[Entry]) -> str:
    engines = list(entries)
    return f"{len(engines)} engine{'' if len(engines) == 1 else 's'} of {count(_total(engines))}B"
