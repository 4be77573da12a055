"""flatfold inspect: the manifest of a saved engine, or the counts of an .onnx file."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from flatfold.cli import options
from flatfold.cli.console import emit, out
from flatfold.text import clean, count

BundleOrOnnx = Annotated[
    str,
    typer.Argument(
        metavar="BUNDLE_OR_ONNX",
        help="The folder of an engine, or an .onnx file.",
        autocompletion=options.complete_model,
    ),
]


def inspect(
    path: BundleOrOnnx,
    max_weights: options.MaxWeights = None,
    links_inside: options.LinksInside = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Show the manifest of a saved engine, or the counts of an ONNX model."""
    if os.path.isdir(path):
        from flatfold.backends.store import read_manifest

        manifest = read_manifest(path)
        if json:
            emit("inspect", {"manifest": manifest})
        else:
            _show(_manifest_facts(manifest))
        return
    description = _describe(path, max_weights, links_inside)
    if json:
        emit("inspect", {"model": description})
    else:
        _show(_model_facts(description))


def _describe(path: str, max_weights: float | None, links_inside: str | None) -> dict[str, Any]:
    from flatfold.frontend import read_model
    from flatfold.frontend.canonicalization.graph_shapes import evaluate_shapes
    from flatfold.frontend.loading.external_data import MAX_WEIGHTS, Allowed
    from flatfold.result import summarise

    links = None if links_inside is None else Path(links_inside)
    model = read_model(path, Allowed(MAX_WEIGHTS if max_weights is None else max_weights, links))
    interface = {"inputs": model.graph.inputs, "outputs": model.graph.outputs}
    described = {
        kind: [_value(value) for value in values if not value.is_initializer()]
        for kind, values in interface.items()
    }
    evaluate_shapes(model.graph, dict(model.opset_imports))  # what is multiplied depends on sizes
    opsets = {domain or "ai.onnx": version for domain, version in model.opset_imports.items()}
    return {
        "name": Path(path).stem,
        "producer": f"{model.producer_name or ''} {model.producer_version or ''}".strip(),
        "opsets": opsets,
        **described,
        "counts": summarise(model).to_dict(),
    }


def _value(value: Any) -> dict[str, Any]:
    dims = None if value.shape is None else [_dim(dim) for dim in value.shape.dims]
    return {"name": value.name, "dtype": _type_name(value.dtype), "shape": dims}


def _type_name(dtype: Any) -> str:
    """What NumPy calls a type, or ONNX where NumPy has no such type."""
    if dtype is None:
        return "unknown"
    try:
        return str(dtype.numpy().name)
    except TypeError:
        return str(dtype.name).lower()


def _dim(dim: Any) -> int | str | None:
    return dim if isinstance(dim, int) else getattr(dim, "value", None)


def _manifest_facts(manifest: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    record = manifest["record"]
    yield "model", str(record.get("name", "unknown"))
    yield "target", f"{manifest['target']}, {manifest['precision']}"
    yield from _interface_facts(manifest)
    for form in ("before", "after"):
        if form in record:
            yield form, _counts(record[form])
    if "equivalence" in record:
        yield "proof", _proof(record["equivalence"])
    if "engine_equivalence" in record:
        yield "as built", _proof(record["engine_equivalence"])
    remarks = record.get("remarks", [])
    applied = sum(bool(remark["applied"]) for remark in remarks)
    yield "rewrites", f"{applied} applied, {len(remarks) - applied} declined"
    yield "built with", ", ".join(f"{n} {v}" for n, v in manifest["versions"].items() if v)
    for name, digest in manifest["files"].items():
        yield "file", f"{name}  sha256 {digest}"


def _model_facts(model: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    yield "model", model["name"]
    yield "made by", model["producer"] or "unknown"
    yield "opsets", ", ".join(f"{domain} {version}" for domain, version in model["opsets"].items())
    yield from _interface_facts(model)
    yield "counts", _counts(model["counts"])


def _interface_facts(description: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    for kind in ("inputs", "outputs"):
        for value in description[kind]:
            sizes = (
                "?"
                if value["shape"] is None
                else "x".join("?" if size is None else str(size) for size in value["shape"])
            )
            yield kind.removesuffix("s"), f"{value['name']}  {value['dtype']} {sizes}"


def _counts(counts: Mapping[str, Any]) -> str:
    ordered = sorted(counts["operators"].items(), key=lambda item: (-item[1], item[0]))
    operators = ", ".join(f"{name} x{number}" for name, number in ordered)
    return (
        f"{counts['nodes']} operators, {counts['parameters']:,} parameters, "
        f"{count(counts['macs'])} multiply-accumulates ({operators})"
    )


def _proof(record: Mapping[str, Any]) -> str:
    from flatfold.proof import Equivalence

    return str(Equivalence.from_dict(record))


def _show(facts: Iterable[tuple[str, str]]) -> None:
    console = out()
    for name, fact in facts:
        console.print(f"{name:12}{clean(fact)}", soft_wrap=True)
