"""flatfold models and flatfold targets: the lists of what can be chosen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flatfold.cli import options
from flatfold.cli.console import emit, out

if TYPE_CHECKING:
    from flatfold.backends import Availability

Pattern = Annotated[
    str,
    typer.Argument(
        metavar="PATTERN",
        help="A shell pattern, such as 'repvgg_b*'.",
        autocompletion=options.complete_model,
    ),
]


def models(
    pattern: Pattern = "*", json: options.Json = False, debug: options.Debug = False
) -> None:
    """List the models of the zoo, without building any."""
    from flatfold.errors import UnknownName
    from flatfold.models import ZOO, list_models

    names = list_models(pattern)
    if not names:
        raise UnknownName("model", pattern, ZOO)
    if json:
        emit("models", {"models": [_entry(name) for name in names]})
        return
    _table(("name", "family", "input", "parameters", "paper", "summary"), map(_row, names))


def _row(name: str) -> tuple[str, ...]:
    entry = _entry(name)
    size = "x".join(map(str, entry["input_shape"]))
    millions = " -> ".join(f"{count / 1e6:.2f}" for count in entry["parameters"].values())
    return name, entry["family"], size, f"{millions} M", entry["paper"], entry["summary"]


def _entry(name: str) -> dict[str, Any]:
    from flatfold.models import ZOO

    spec = ZOO[name]
    return {
        "name": name,
        "family": spec.family,
        "input_shape": list(spec.input_shape),
        "parameters": dict(zip(("before", "after"), spec.parameters, strict=True)),
        "paper": f"arXiv:{spec.paper}",
        "summary": spec.summary,
    }


def targets(json: options.Json = False, debug: options.Debug = False) -> None:
    """List the targets, best first, and whether each can be used here."""
    from flatfold.backends import availability_table

    table = availability_table()
    if json:
        emit("targets", {"targets": [{"name": n, **asdict(a)} for n, a in table.items()]})
        return
    rows = [(name, _usable(state), state.reason, state.hint) for name, state in table.items()]
    _table(("target", "available", "because", "try"), rows)


def _usable(state: Availability) -> str:
    """ "no"; "to build" where engines can be built but not run; "yes"."""
    if not state.available:
        return "no"
    return "yes" if state.runs else "to build"


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    from rich.table import Table

    table = Table(*columns, box=None, pad_edge=False, header_style="dim")
    for row in rows:
        table.add_row(*row)
    out().print(table)
