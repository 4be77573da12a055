"""Layers and size of TensorRT-RTX engines of a network, before and after, and by precision.

    python -m bench.engine_layers [MODEL ...]

Prints the tables of docs/engines.md. Engines are built ahead of time for compute capability 89, so
no GPU is needed; layers and types are those of the build log, after all fusion.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import onnx_ir as ir

import flatfold
from flatfold.backends import load_backend
from flatfold.precision import PRECISIONS

MODELS = ("repvgg_a0", "mobileone_s0", "vanillanet_5")
HEAD = ("network", "ONNX nodes", "engine layers", "engine, MB")
BY_PRECISION = ("network", "precision", "engine layers", "convolutions", "engine, MB")
CONVOLUTION = "correlation"  # what TensorRT for RTX calls it


@dataclass(frozen=True)
class Built:
    """An engine: nodes of its graph, layers, types of its convolutions, and size in bytes."""

    nodes: int
    layers: int
    convolutions: dict[str, int]
    size: int

    @property
    def megabytes(self) -> str:
        return f"{self.size / 1e6:.1f}"


def build(model: ir.Model) -> Built:
    """Builds `model` and counts."""
    with load_backend("trt-rtx").build(model, {"compute_capabilities": "89"}) as engine:
        layers = engine.facts["layers"]
        types = Counter(one["datatypes"] for one in layers if one["type"] == CONVOLUTION)
        return Built(len(model.graph), engine.layers, dict(types), engine.size)


def before_and_after(name: str) -> list[str]:
    """The cells for the training form and the rewritten graph."""
    result = flatfold.optimize(name, target="trt-rtx", verify="off")
    before, after = build(result.training), build(result.graph)
    pairs = (
        (before.nodes, after.nodes),
        (before.layers, after.layers),
        (round(before.size / 1e6), round(after.size / 1e6)),
    )
    return [name, *(f"{old} -> {new}" for old, new in pairs)]


def by_precision(name: str) -> Iterator[list[str]]:
    """The cells for each precision."""
    for precision in PRECISIONS:
        if precision == "mixed":
            continue  # what it keeps in float depends on the data
        data = "random" if precision == "int8" else None
        result = flatfold.optimize(
            name, target="trt-rtx", precision=precision, calibration=data, verify="off"
        )
        built = build(result.graph)
        types = ", ".join(f"{count} {types}" for types, count in built.convolutions.items())
        yield [name, precision, str(built.layers), types, built.megabytes]


def line(cells: Iterable[str]) -> str:
    """A line of a table in Markdown."""
    return f"| {' | '.join(cells)} |"


def table(head: tuple[str, ...], rows: Iterator[list[str]]) -> None:
    print(line(head))
    print("|---" * len(head) + "|")
    for cells in rows:
        print(line(cells), flush=True)


def main(names: list[str]) -> None:
    table(HEAD, (before_and_after(name) for name in names or MODELS))
    print()
    table(BY_PRECISION, (row for name in names or MODELS for row in by_precision(name)))


if __name__ == "__main__":
    main(sys.argv[1:])
