"""What a report was measured on, and how, as lines of text; nothing in it is taken for granted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any

from flatfold.benchmark.report import Report

UNKNOWN = "unknown"
APART = ("versions", "command")  # facts of the environment that are shown in their own way


def date(report: Report) -> str:
    """2026-08-20T10:00:00+00:00 -> "2026-08-20 10:00 UTC"; else as it is."""
    told = str(report.environment.get("date") or "")
    return f"{told[:10]} {told[11:16]} UTC" if told.endswith("+00:00") else told


def machine(report: Report) -> str:
    told = report.environment
    parts = (told.get("processor") or "unknown processor", threads(report), date(report))
    return " · ".join(str(part) for part in parts if part)


def threads(report: Report) -> str:
    found = report.environment.get("threads")
    return "1 thread" if found == 1 else f"{found or 'unknown'} threads"


def facts(report: Report) -> list[tuple[str, str]]:
    """The environment and then the options, a line each."""
    told = {n: v for n, v in report.environment.items() if n not in APART}
    return list(dict.fromkeys((*_flat(told, ""), *_flat(report.options, ""))))


def command(report: Report) -> str:
    """What was typed, wherever the program was."""
    told = str(report.environment.get("command") or "")
    program, _, rest = told.partition(" ")
    is_ours = PurePath(program).name in ("flatfold", "__main__.py")
    return f"flatfold {rest}" if is_ours and rest else told


def versions(report: Report) -> list[tuple[str, str]]:
    found = report.environment.get("versions")
    return [*_flat(found, "")] if isinstance(found, Mapping) else []


def _flat(content: Mapping[str, Any], before: str) -> Iterator[tuple[str, str]]:
    for name, value in content.items():
        unit = " (s)" if name.endswith("_s") else ""
        title = f"{before}{name.removesuffix('_s')}{unit}".replace("_", " ")
        if isinstance(value, Mapping):
            yield from _flat(value, f"{title}: ")
        elif isinstance(value, list | tuple) and any(isinstance(v, Mapping) for v in value):
            for number, one in enumerate(value, 1):
                yield from _flat({f"{name} {number}": one}, before)
        elif isinstance(value, list | tuple):
            yield title, ", ".join(map(_text, value)) or "none"
        else:
            yield title, _text(value)


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return UNKNOWN if value is None else str(value)
