"""flatfold verify: whether two models compute the same function."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from flatfold.cli import options as given
from flatfold.cli.console import emit, out, working
from flatfold.errors import InputError, NotEquivalent
from flatfold.text import clean

Either = Annotated[
    str,
    typer.Argument(
        help=f"{given.MODEL_FORMS} Or the folder of an engine.", autocompletion=given.complete_model
    ),
]

Level = Annotated[
    str, typer.Option(metavar="sample|bound", help="Run both, or compare their parts too.")
]

Checked = Annotated[
    bool, typer.Option("--certificate", help="B is a saved engine of A: check its certificate too.")
]


def verify(
    model_a: Either,
    model_b: Either,
    weights: given.Weights = None,
    batch: given.Batch = None,
    size: given.Size = None,
    dynamic_batch: given.DynamicBatch = False,
    verify: Level = "bound",
    certificate: Checked = False,
    max_weights: given.MaxWeights = None,
    links_inside: given.LinksInside = None,
    json: given.Json = False,
    debug: given.Debug = False,
) -> None:
    """Compare two models, whichever tool rewrote one; exit code 4 if they differ."""
    from flatfold import api

    with working() as progress:
        progress("comparing")
        found = api.verify(
            graph_of(model_a),
            graph_of(model_b),
            verify=verify,
            certificate=certificate_of(model_b) if certificate else None,
            progress=progress,
            input_shape=shape_of((model_a, model_b), batch, size, dynamic_batch),
            dynamic_batch=dynamic_batch,
            weights=weights,
            max_weights=max_weights,
            links_inside=links_inside,
        )
    if json:
        emit("verify", {"passed": found.passed, **found.to_dict()})
    else:
        out().print(clean(str(found)), soft_wrap=True)
    if not found.passed:
        raise typer.Exit(NotEquivalent.exit_code)


def shape_of(models: Iterable[str], *asked: Any) -> tuple[int, ...] | None:
    """The input that was asked for, of the first model that has one to ask for."""
    shapes = (given.input_shape(model, *asked) for model in models)
    return next((shape for shape in shapes if shape), None)


def graph_of(model: str) -> Any:
    """The graph inside a saved engine, after its checks; anything else as it is."""
    from flatfold.backends.store import MANIFEST, load_model, read_manifest

    folder = Path(model)
    if not os.path.exists(folder / MANIFEST):
        return model
    return load_model(folder, read_manifest(folder))


def certificate_of(folder: str) -> Any:
    """The certificate in a saved engine. Raises InputError if it has none."""
    from flatfold.backends.store import read_certificate, read_manifest

    found = read_certificate(Path(folder), read_manifest(folder))
    if found is None:
        raise InputError(
            "expected an engine with a certificate, found one without",
            where=folder,
            hint="`flatfold compile` with --verify bound or certify writes one",
        )
    return found
