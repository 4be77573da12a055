"""The golden table: one row for each network of the zoo, a file for each family."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

Row = dict[str, Any]

TABLE: dict[str, dict[str, Row]] = {
    file.stem: json.loads(file.read_text(encoding="utf-8"))
    for file in sorted(Path(__file__).with_name("table").glob("*.json"))
}
ROWS = {name: row for family in TABLE.values() for name, row in family.items()}
# Proven by default, at several sizes; the others, which take minutes, are for make test-slow.
QUICK = {"repvgg_a0"}

# The network with the fewest parameters of each family.
SMALLEST = {
    family: min(rows, key=lambda name: ROWS[name]["parameters"][0])
    for family, rows in TABLE.items()
}


def every(names: Iterable[str] = ROWS) -> list[Any]:
    """The names as parameters of a test; the large networks are slow."""
    return [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in names]


def parameters(row: Row) -> tuple[int, int]:
    """Of the module and of what is left of it.

    A graph may hold constants besides, such as kernels of ones, which its counts include.
    """
    before, after = row["parameters"]
    return before - row.get("constants", 0), after
