"""flatfold reduce: the smallest pair of models with the same disagreement."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flatfold.cli import options as given
from flatfold.cli.console import emit, out, working
from flatfold.cli.verify import Either, graph_of, shape_of
from flatfold.errors import NotEquivalent
from flatfold.text import clean

Out = Annotated[
    Path, typer.Option("--out", "-o", metavar="DIR", help="Where to write the two small models.")
]


def reduce(
    model_a: Either,
    model_b: Either,
    out_folder: Out = Path("build/reduced"),
    weights: given.Weights = None,
    batch: given.Batch = None,
    size: given.Size = None,
    dynamic_batch: given.DynamicBatch = False,
    max_weights: given.MaxWeights = None,
    links_inside: given.LinksInside = None,
    json: given.Json = False,
    debug: given.Debug = False,
) -> None:
    """Find the smallest part in which two models differ; exit code 4 if they do."""
    from flatfold import api

    with working() as progress:
        progress("comparing")
        found = api.reduce(
            graph_of(model_a),
            graph_of(model_b),
            out_folder,
            progress=progress,
            input_shape=shape_of((model_a, model_b), batch, size, dynamic_batch),
            dynamic_batch=dynamic_batch,
            weights=weights,
            max_weights=max_weights,
            links_inside=links_inside,
        )
    if json:
        emit("reduce", {"differ": bool(found), **found.to_dict()})
    else:
        out().print(clean(str(found)), soft_wrap=True)
        if found:
            out().print(clean(f"written to {found.folder}/: a.onnx, b.onnx, fault.json"))
    if found:
        raise typer.Exit(NotEquivalent.exit_code)
