"""Layers and size of TensorRT-RTX engines of a network, before and after the rewrites.

    python -m bench.engine_layers [MODEL ...]

Prints the table of docs/engines.md. Engines are built ahead of time for compute capability 89, so
no GPU is needed; the layers are those of the build log, after all fusion.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import onnx_ir as ir

import flatfold
from flatfold.backends import load_backend

MODELS = ("repvgg_a0", "mobileone_s0", "vanillanet_5")
HEAD = ("network", "ONNX nodes", "engine layers", "engine, MB")


@dataclass(frozen=True)
class Built:
    """An engine: nodes of its graph, layers, and size in bytes."""

    nodes: int
    layers: int
    size: int


def build(model: ir.Model) -> Built:
    """Builds `model` and counts."""
    with load_backend("trt-rtx").build(model, {"compute_capabilities": "89"}) as engine:
        return Built(len(model.graph), engine.layers, engine.size)


def both(name: str) -> tuple[Built, Built]:
    """The engine of the training form, and that of the rewritten graph."""
    result = flatfold.optimize(name, target="trt-rtx", verify="off")
    return build(result.training), build(result.graph)


def rows(name: str) -> str:
    """A line of the table."""
    before, after = both(name)
    pairs = (
        (before.nodes, after.nodes),
        (before.layers, after.layers),
        (round(before.size / 1e6), round(after.size / 1e6)),
    )
    return " | ".join([f"| {name}", *(f"{old} -> {new}" for old, new in pairs)]) + " |"


def main(names: list[str]) -> None:
    print("| " + " | ".join(HEAD) + " |")
    print("|---" * len(HEAD) + "|")
    for name in names or MODELS:
        print(rows(name), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
