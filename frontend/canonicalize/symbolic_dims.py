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

_SAFE = 2**31  # beyond it arithmetic may wrap around, depending on the type


def bounded(size: Size) -> Size:
    """`size`, unless it is a number that does not fit into every integer type."""
    return None if isinstance(size, int) and not -_SAFE <= size < _SAFE else size


def broadcast(shapes: Sequence[Sequence[Size]]) -> tuple[Size, ...]:
    """The shape of a sum of tensors of `shapes`, in a graph that runs."""
    rank = max(len(shape) for shape in shapes)
    padded: list[list[Size]] = [[*[1] * (rank - len(shape)), *shape] for shape in shapes]
    columns = zip(*padded, strict=True)
    return tuple(_joint({size for size in sizes if size != 1}) for sizes in columns)


def _joint(sizes: set[Size]) -> Size:
    """The size of an axis from those that are not 1."""
    if len(sizes) < 2:
        return next(iter(sizes), 1)
    numbers = [size for size in sizes if isinstance(size, int)]
    return numbers[0] if len(numbers) == 1 else None


def _add(a: Size, b: Size) -> Size:
    if isinstance(a, int) and isinstance(b, int):
        return bounded(a + b)
    return b if a == 0 else a if b == 0 else None


def _sub(a: Size, b: Size) -> Size:
    if isinstance(a, int) and isinstance(b, int):
        return bounded(a - b)
    if b == 0:
        return a
    return 0 if a is not None and a == b else None


def _mul(a: Size, b: Size) -> Size:
    if isinstance(a, int) and isinstance(b, int):
        return bounded(a * b)
    if a == 0 or b == 0:
        return 0
    return b if a == 1 else a if b == 1 else None


def _div(a: Size, b: Size) -> Size:
    if isinstance(a, int) and isinstance(b, int):
        return a // b if a >= 0 and b > 0 else None
    return a if b == 1 else None


def _mod(a: Size, b: Size) -> Size:
    if isinstance(a, int) and isinstance(b, int):
        return a % b if a >= 0 and b > 0 else None
    return 0 if b == 1 else None


def _neg(a: Size) -> Size:
    return bounded(-a) if isinstance(a, int) else None


def _equal(a: Size, b: Size) -> Size:
    if a is None or b is None:
        return None
    if isinstance(a, int) == isinstance(b, int):
        return a == b if isinstance(a, int) or a == b else None
    number = a if isinstance(a, int) else b
    return False if isinstance(number, int) and number < 0 else None


def _where(condition: Size, a: Size, b: Size) -> Size:
    if not isinstance(condition, int):
        return a if a == b else None
    return a if condition else b


def _extreme(choose: Callable[..., int], nothing: int) -> Callable[..., Size]:
    """Min or Max; of a number up to 0 and a named size, argument `nothing` of the two."""

    def function(*sizes: Size) -> Size:
        result = sizes[0]
        for size in sizes[1:]:
            result = pair(result, size)
        return result

    def pair(a: Size, b: Size) -> Size:
        if isinstance(a, int) and isinstance(b, int):
            return choose(a, b)
        if a is None or b is None or a == b:
            return a if a == b else None
        number, name = (a, b) if isinstance(a, int) else (b, a)
        if not isinstance(number, int) or number > 0:
            return None
        return (number, name)[nothing]

    return function


ELEMENTWISE: dict[str, Callable[..., Size]] = {
    "Add": _add,
    "Sub": _sub,
    "Mul": _mul,
    "Div": _div,
    "Mod": _mod,
    "Neg": _neg,
    "Equal": _equal,
    "Where": _where,
    "Min": _extreme(min, 0),
    "Max": _extreme(max, 1),
}


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
