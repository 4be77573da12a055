"""What is known, ahead of any run, of the integers that a graph computes from shapes.

A size is an int, the name of a symbolic dimension (equal names are equal sizes), or None. An
element of an integer tensor is the same. A grid of indices with a symbolic side is known by
its runs: along which axis each of its components counts, and from where.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

__all__ = [
    "LIMIT",
    "Facts",
    "Items",
    "Known",
    "Rule",
    "Run",
    "Size",
    "constant_of",
    "count_of",
    "facts_of",
]

Size = int | str | None
Items = NDArray[np.object_]

LIMIT = 2**16
"""Elements of the largest tensor whose elements are followed one by one."""

_INTEGERS = (ir.DataType.INT64, ir.DataType.INT32, ir.DataType.BOOL)


@dataclass(frozen=True)
class Run:
    """Indices ``start + position along axis``; the same index everywhere if `axis` is None."""

    axis: int | None
    start: int


@dataclass(frozen=True, eq=False)
class Known:
    """A tensor of `shape`, and if known its elements: `items`, or `runs`.

    One run is the tensor itself; if `stacked`, run i is component i along the last axis.
    """

    shape: tuple[Size, ...]
    items: Items | None = None
    runs: tuple[Run, ...] = ()
    stacked: bool = False

    @classmethod
    def of(cls, items: object) -> Known:
        array = np.array(items, dtype=object)
        return cls(array.shape, array)


class Facts:
    """What `facts_of` found out."""

    def __init__(self) -> None:
        self.known: dict[ir.Value, Known] = {}

    def of(self, value: ir.Value | None) -> Known | None:
        """Size and elements of an integer tensor, or of any other its size alone."""
        if value is None:
            return None
        if value in self.known:
            return self.known[value]
        array = constant_of(value)
        if array is None or value.dtype not in _INTEGERS or array.size > LIMIT:
            return None
        return Known.of(array.astype(object))

    def sizes(self, value: ir.Value | None) -> tuple[Size, ...] | None:
        """The shape of `value`; an unnamed symbolic dimension gets a name of its own."""
        if value is None:
            return None
        known = self.known.get(value)
        if value.shape is None:
            return known.shape if known else None
        declared = [_size(value, i) for i in range(len(value.shape))]
        if known is None or len(known.shape) != len(declared):
            return tuple(declared)
        return tuple(_better(a, b) for a, b in zip(known.shape, declared, strict=True))

    def integers(self, value: ir.Value | None) -> NDArray[np.int64] | None:
        """The elements of an integer tensor, if all are known."""
        array = None if value is None else constant_of(value)
        if array is not None:
            return array.astype(np.int64) if array.dtype.kind in "ib" else None
        known = self.of(value)
        if known is None or known.items is None:
            return None
        if not all(isinstance(item, int) for item in known.items.flat):
            return None
        return known.items.astype(np.int64)


Rule = Callable[[ir.Node, Facts], "Known | None"]


def facts_of(graph: ir.Graph, rules: Mapping[str, Rule]) -> Facts:
    """Go over the nodes of `graph`, not those of its bodies, in order."""
    facts = Facts()
    for node in graph:
        rule = rules.get(node.op_type) if node.domain == "" else None
        if rule is None or len(node.outputs) != 1:
            continue
        try:
            known = rule(node, facts)
        except (IndexError, KeyError, TypeError, ValueError):
            continue  # the node is malformed; who runs it will say so
        if known is not None and not any(isinstance(n, int) and n < 0 for n in known.shape):
            facts.known[node.outputs[0]] = known
    return facts


def constant_of(value: ir.Value | None) -> NDArray[np.generic] | None:
    """The elements of a constant; None for a default that the caller may override."""
    if value is None or not value.is_initializer() or value.is_graph_input():
        return None
    return None if value.const_value is None else value.const_value.numpy()


def count_of(sizes: Sequence[Size]) -> int | None:
    """How many elements there are, if every size is a number."""
    numbers = [size for size in sizes if isinstance(size, int)]
    return math.prod(numbers) if len(numbers) == len(sizes) else None


def _size(value: ir.Value, axis: int) -> Size:
    assert value.shape is not None
    size = value.shape[axis]
    if isinstance(size, int):
        return size
    return size.value or f"\0{id(value)}:{axis}"


def _better(a: Size, b: Size) -> Size:
    """Of two descriptions of one size the one that says more."""
    return min((a, b), key=lambda size: 0 if isinstance(size, int) else _vagueness(size))


def _vagueness(name: str | None) -> int:
    return 3 if name is None else 2 if name.startswith("\0") else 1
