"""Which look a variant has in every chart of a model."""

from __future__ import annotations

from collections.abc import Iterable

from flatfold.benchmark.report import FLATFOLD, TRAINING, ModelReport, Row

LOOKS = 6  # of those that are neither flatfold's nor the training graph


def look(model: ModelReport, row: Row) -> str:
    """A class of the style sheet; the same variant has the same one on all targets."""
    if row.wrong:
        return "wrong"
    if row.variant in (FLATFOLD, TRAINING):
        return row.variant
    names = dict.fromkeys(r.variant for r in model.rows if r.variant not in (FLATFOLD, TRAINING))
    return f"other{list(names).index(row.variant) % LOOKS + 1}"


def legend(model: ModelReport, rows: Iterable[Row]) -> list[tuple[str, str]]:
    """The look and the name of each row."""
    return [(look(model, row), row.variant) for row in rows]
