"""What a mutant is drawn from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx

Rng = np.random.Generator
SIZES = (0, 1, 2, 3, 4, 5, 7, 8, 16, 64, 1000, -1, -2, -8, 2**31 - 1, 2**31, -(2**63), 2**63 - 1)


def one(items: Sequence[Any], rng: Rng) -> Any:
    return items[int(rng.integers(len(items)))]


def size(rng: Rng) -> int:
    return SIZES[int(rng.integers(len(SIZES)))]


def values(proto: onnx.ModelProto) -> list[str]:
    graph = proto.graph
    names = [name for node in graph.node for name in node.output]
    names += [value.name for value in (*graph.input, *graph.initializer)]
    return [*names, ""]
