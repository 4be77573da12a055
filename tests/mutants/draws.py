"""Random draws that the changes share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx

Rng = np.random.Generator
SIZES = (0, 1, 2, 3, 4, 5, 7, 8, 16, 64, 1000, -1, -2, -8, 2**31 - 1, 2**31, -(2**63), 2**63 - 1)


def one(items: Sequence[Any], rng: Rng) -> Any:
    """One of `items`."""
    return items[int(rng.integers(len(items)))]


def size(rng: Rng) -> int:
    """A size, among them zero, negative and overflowing ones."""
    return SIZES[int(rng.integers(len(SIZES)))]


def values(proto: onnx.ModelProto) -> list[str]:
    """The names of all values, and the empty name, which stands for an absent input."""
    graph = proto.graph
    names = [name for node in graph.node for name in node.output]
    names += [value.name for value in (*graph.input, *graph.initializer)]
    return [*names, ""]
