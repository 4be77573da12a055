"""Reads the pages: their code blocks, headings and prose."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md")),
)

_FENCE = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_FILE = re.compile(r"# ([\w/]+\.py)\n")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, the heading above it, and its text."""

    language: str
    heading: str
    text: str

    @property
    def file(self) -> str:
        """The path in the first line of the block, such as `# models/twin.py`; else empty."""
        match = _FILE.match(self.text) if self.language == "python" else None
        return match[1] if match else ""


def read(page: str) -> str:
    return (ROOT / page).read_text("utf-8")


def prose(page: str) -> str:
    """The page with its fenced blocks blanked out, so that positions stay the same."""
    return _FENCE.sub(lambda match: " " * len(match[0]), read(page))


def headings(page: str) -> list[tuple[int, str]]:
    """(position, text) of every heading."""
    return [(match.start(), match[1]) for match in _HEADING.finditer(prose(page))]


def blocks(page: str) -> list[Block]:
    titles = headings(page)
    return [
        Block(match[1], [text for at, text in titles if at < match.start()][-1], match[2])
        for match in _FENCE.finditer(read(page))
    ]
