"""flatfold verify: whether two models compute the same function."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from flatfold.cli import options as given
from flatfold.cli.streams import emit, out, working
from flatfold.cli.text import clean
from flatfold.errors import NotEquivalent

Either = Annotated[
    str,
    typer.Argument(
        help=f"{given.MODEL_FORMS} Or the folder of an engine.", autocompletion=given.complete_model
    ),
]

Level = Annotated[
    str, typer.Option(metavar="sample|bound", help="Run both, or compare their parts too.")
]


def verify(
    model_a: Either,
    model_b: Either,
    weights: given.Weights = None,
    batch: given.Batch = None,
    size: given.Size = None,
    dynamic_batch: given.DynamicBatch = False,
    verify: Level = "bound",
    json: given.Json = False,
    debug: given.Debug = False,
) -> None:
    """Compare two models, whichever tool rewrote one; exit code 4 if they differ."""
    from flatfold import pairs

    shape = next(
        (s for m in (model_a, model_b) if (s := given.input_shape(m, batch, size, dynamic_batch))),
        None,
    )
    chosen: dict[str, Any] = {
        "input_shape": shape,
        "dynamic_batch": dynamic_batch,
        "weights": weights,
        "verify": verify,
    }
    with working() as progress:
        progress("comparing")
        models = graph_of(model_a), graph_of(model_b)
        found = pairs.verify(*models, progress=progress, **chosen)
    if json:
        emit("verify", {"passed": found.passed, **found.to_dict()})
    else:
        out().print(clean(str(found)), soft_wrap=True)
    if not found.passed:
        raise typer.Exit(NotEquivalent.exit_code)


def graph_of(model: str) -> Any:
    """The graph inside a saved engine, after its checks; anything else as it is."""
    from flatfold.backends.bundle import MANIFEST, load_model, read_manifest

    folder = Path(model)
    if not (folder / MANIFEST).exists():
        return model
    return load_model(folder, read_manifest(folder))
