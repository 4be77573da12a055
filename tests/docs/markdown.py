"""Reading the documentation: its code blocks, headings and words."""

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
    """A fenced block: its language, the heading that it stands under, and its text."""

    language: str
    heading: str
    text: str

    @property
    def file(self) -> str:
        """The path of the file that the block is, where its first line names one."""
        named = _FILE.match(self.text) if self.language == "python" else None
        return named[1] if named else ""


def read(page: str) -> str:
    return (ROOT / page).read_text("utf-8")


def prose(page: str) -> str:
    """The page with its fenced blocks blanked out, every character at its place."""
    return _FENCE.sub(lambda found: " " * len(found[0]), read(page))


def headings(page: str) -> list[tuple[int, str]]:
    """(position, text) of every heading."""
    return [(found.start(), found[1]) for found in _HEADING.finditer(prose(page))]


def blocks(page: str) -> list[Block]:
    titles = headings(page)
    return [
        Block(found[1], [text for at, text in titles if at < found.start()][-1], found[2])
        for found in _FENCE.finditer(read(page))
    ]
