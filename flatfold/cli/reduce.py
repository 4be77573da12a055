"""flatfold reduce: the smallest pair of models with the same disagreement."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flatfold.cli import options
from flatfold.cli.console import emit, out, working
from flatfold.cli.verify import ModelOrEngine, graph_of, input_shape_of
from flatfold.errors import NotEquivalent
from flatfold.text import clean

Out = Annotated[
    Path, typer.Option("--out", "-o", metavar="DIR", help="Where to write the two small models.")
]


def reduce(
    model_a: ModelOrEngine,
    model_b: ModelOrEngine,
    out_folder: Out = Path("build/reduced"),
    weights: options.Weights = None,
    batch: options.Batch = None,
    size: options.Size = None,
    shape: options.Shape = None,
    dynamic_batch: options.DynamicBatch = False,
    max_weights: options.MaxWeights = None,
    links_inside: options.LinksInside = None,
    constant_defaults: options.ConstantDefaults = False,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Find the smallest part in which two models differ; exit code 4 if they do."""
    from flatfold import api

    with working() as progress:
        progress("comparing")
        reduced = api.reduce(
            graph_of(model_a),
            graph_of(model_b),
            out_folder,
            progress=progress,
            input_shape=input_shape_of((model_a, model_b), batch, size, dynamic_batch, shape),
            dynamic_batch=dynamic_batch,
            weights=weights,
            max_weights=max_weights,
            links_inside=links_inside,
            constant_defaults=constant_defaults or None,
        )
    if json:
        emit("reduce", {"differ": bool(reduced), **reduced.to_dict()})
    else:
        out().print(clean(str(reduced)), soft_wrap=True)
        if reduced:
            out().print(clean(f"written to {reduced.folder}/: a.onnx, b.onnx, fault.json"))
    if reduced:
        raise typer.Exit(NotEquivalent.exit_code)
