"""The machine and the options of a report as lines of text; any fact may be missing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any

from flatfold.benchmark.report import Report

UNKNOWN = "unknown"
SHOWN_APART = ("versions", "command")  # facts of the environment that are shown separately


def date(report: Report) -> str:
    """2026-08-20T10:00:00+00:00 -> "2026-08-20 10:00 UTC"; any other date unchanged."""
    text = str(report.environment.get("date") or "")
    return f"{text[:10]} {text[11:16]} UTC" if text.endswith("+00:00") else text


def machine(report: Report) -> str:
    """One line: processor, threads and date."""
    processor = report.environment.get("processor")
    parts = (processor or "unknown processor", threads(report), date(report))
    return " · ".join(str(part) for part in parts if part)


def threads(report: Report) -> str:
    count = report.environment.get("threads")
    return "1 thread" if count == 1 else f"{count or 'unknown'} threads"


def facts(report: Report) -> list[tuple[str, str]]:
    """(name, value) of each fact of the environment, then of each option."""
    environment = {n: v for n, v in report.environment.items() if n not in SHOWN_APART}
    return list(dict.fromkeys((*_flat(environment, ""), *_flat(report.options, ""))))


def command(report: Report) -> str:
    """The command line, with "flatfold" for the path of the program."""
    line = str(report.environment.get("command") or "")
    program, _, rest = line.partition(" ")
    is_ours = PurePath(program).name in ("flatfold", "__main__.py")
    return f"flatfold {rest}" if is_ours and rest else line


def versions(report: Report) -> list[tuple[str, str]]:
    """(package, version) of each package that was used."""
    packages = report.environment.get("versions")
    return [*_flat(packages, "")] if isinstance(packages, Mapping) else []


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
