"""flatfold verify: whether two models compute the same function."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from flatfold.cli import options
from flatfold.cli.console import emit, out, working
from flatfold.errors import InputError, NotEquivalent
from flatfold.text import clean

ModelOrEngine = Annotated[
    str,
    typer.Argument(
        help=f"{options.MODEL_FORMS} Or the folder of an engine.",
        autocompletion=options.complete_model,
    ),
]

Level = Annotated[
    str, typer.Option(metavar="sample|bound", help="Run both, or compare their parts too.")
]

WithCertificate = Annotated[
    bool, typer.Option("--certificate", help="B is a saved engine of A: check its certificate too.")
]


def verify(
    model_a: ModelOrEngine,
    model_b: ModelOrEngine,
    weights: options.Weights = None,
    batch: options.Batch = None,
    size: options.Size = None,
    shape: options.Shape = None,
    dynamic_batch: options.DynamicBatch = False,
    verify: Level = "bound",
    certificate: WithCertificate = False,
    max_weights: options.MaxWeights = None,
    links_inside: options.LinksInside = None,
    constant_defaults: options.ConstantDefaults = False,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Compare two models, whichever tool rewrote one; exit code 4 if they differ."""
    from flatfold import api

    with working() as progress:
        progress("comparing")
        equivalence = api.verify(
            graph_of(model_a),
            graph_of(model_b),
            verify=verify,
            certificate=certificate_of(model_b) if certificate else None,
            progress=progress,
            input_shape=input_shape_of((model_a, model_b), batch, size, dynamic_batch, shape),
            dynamic_batch=dynamic_batch,
            weights=weights,
            max_weights=max_weights,
            links_inside=links_inside,
            constant_defaults=constant_defaults or None,
        )
    if json:
        emit("verify", {"passed": equivalence.passed, **equivalence.to_dict()})
    else:
        out().print(clean(str(equivalence)), soft_wrap=True)
    if not equivalence.passed:
        raise typer.Exit(NotEquivalent.exit_code)


def input_shape_of(
    models: Sequence[str],
    batch: int | None,
    size: str | None,
    dynamic_batch: bool,
    shape: Sequence[str] | None,
) -> Any:
    """The input shape: that of the first model that is not ONNX already, or of both."""
    from flatfold.sources import is_graph

    modules = [model for model in models if not is_graph(model)]
    return options.input_shape((*modules, *models)[0], batch, size, dynamic_batch, shape)


def graph_of(model: str) -> Any:
    """The graph in the folder of a saved engine, whose files are checked; else `model` itself."""
    from flatfold.backends.store import MANIFEST, load_model, read_manifest

    folder = Path(model)
    if not os.path.exists(folder / MANIFEST):
        return model
    return load_model(folder, read_manifest(folder))


def certificate_of(folder: str) -> Any:
    """The certificate in a saved engine. Raises InputError if it has none."""
    from flatfold.backends.store import read_certificate, read_manifest

    certificate = read_certificate(Path(folder), read_manifest(folder))
    if certificate is None:
        raise InputError(
            "expected an engine with a certificate, found one without",
            where=folder,
            hint="`flatfold compile` with --verify bound or certify writes one",
        )
    return certificate
