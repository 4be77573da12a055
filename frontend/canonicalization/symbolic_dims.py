"""Partial evaluation of integer tensors: shapes and sizes, as far as they are known before a run.

A size is an int, the name of a symbolic dimension (equal names are equal sizes), or None if
nothing is known. An element of an integer tensor is the same.

    Size, KnownTensor, Arange   the values: what is known of a size, of a tensor, of its elements
    Shapes                      what is known of every tensor of a graph
    ELEMENTWISE                 arithmetic on sizes, by ONNX operator; Shapes adds and subtracts
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

Size = int | str | None
Elements = NDArray[np.object_]

MAX_ELEMENTS = 2**16
"""The largest tensor whose elements are evaluated one by one."""

_UNNAMED = "unknown_"  # starts the names of sizes of which nothing is known
_LONGEST_NAME = 200  # characters of the name of a size

NUMPY_INTEGERS: dict[ir.DataType | None, type[np.generic]] = {
    ir.DataType.INT64: np.int64,
    ir.DataType.INT32: np.int32,
    ir.DataType.BOOL: np.bool_,
}
"""The types of the tensors whose elements are evaluated."""


@dataclass(frozen=True)
class Arange:
    """Elements ``start + position along axis``; ``start`` everywhere if `axis` is None."""

    axis: int | None
    start: int


@dataclass(frozen=True, eq=False)
class KnownTensor:
    """A tensor of `shape`, with its elements if known: one by one, or as aranges.

    Aranges describe a grid of indices with a symbolic size. A single one is the tensor itself;
    if `stacked`, the tensor is ``np.stack(aranges, axis=-1)``.
    """

    shape: tuple[Size, ...]
    elements: Elements | None = None
    aranges: tuple[Arange, ...] = ()
    stacked: bool = False

    @classmethod
    def of(cls, elements: object) -> KnownTensor:
        array = np.array(elements, dtype=object)
        return cls(array.shape, array)


class Shapes:
    """Shapes of tensors, the elements of those that hold sizes or indices, computed constants."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self.tensors: dict[ir.Value, KnownTensor] = {}
        self.constants: dict[ir.Value, NDArray[Any]] = {}
        self.claimed: set[ir.Value] = set()  # what they declare does not follow from anything
        self._taken = frozenset(names)  # the names that the inputs of the graph declare
        self._parts: dict[str, tuple[str, int, int]] = {}
        self._unnamed: dict[tuple[ir.Value, int], str] = {}
        self._count = 0

    def tensor(self, value: ir.Value | None) -> KnownTensor | None:
        """Shape and elements of an integer tensor; of an evaluated other tensor, its shape."""
        if value is None:
            return None
        if value in self.tensors:
            return self.tensors[value]
        array = constant_of(value)
        if array is None or value.dtype not in NUMPY_INTEGERS or array.size > MAX_ELEMENTS:
            return None
        return KnownTensor.of(array.astype(object))

    def sizes(self, value: ir.Value | None) -> tuple[Size, ...] | None:
        """The shape of `value`; each size of which nothing is known gets a name of its own."""
        if value is None:
            return None
        known = self.tensors.get(value)
        if known is not None:
            sizes = enumerate(known.shape)
            return tuple(self._unique(value, i) if size is None else size for i, size in sizes)
        claimed = value.shape is None or value in self.claimed
        return None if claimed else self._declared(value)

    def array(self, value: ir.Value | None) -> NDArray[Any] | None:
        """The elements of a tensor that is constant or was computed from constants."""
        if value is None:
            return None
        array = self.constants.get(value)
        if array is None:
            array = constant_of(value)
        if array is None and value in self.tensors and value.dtype in NUMPY_INTEGERS:
            integers = self.integers(value)
            typed = None if integers is None else integers.astype(NUMPY_INTEGERS[value.dtype])
            return typed if np.array_equal(typed, integers) else None  # type: ignore[arg-type]
        return array

    def shape_operand(self, value: ir.Value | None) -> tuple[Size, ...] | None:
        """The elements of a 1-D tensor of sizes, such as the second input of Reshape."""
        known = self.tensor(value)
        if known is None or known.elements is None or known.elements.ndim != 1:
            return None
        return tuple(known.elements)

    def integers(self, value: ir.Value | None) -> NDArray[np.int64] | None:
        """The elements of an integer tensor, if all are known numbers."""
        array = None if value is None else self.constants.get(value)
        if array is None:
            array = constant_of(value)
        if array is not None:
            return array.astype(np.int64) if array.dtype.kind in "iub" else None
        known = self.tensor(value)
        if known is None or known.elements is None:
            return None
        if not all(isinstance(element, int) for element in known.elements.flat):
            return None
        return known.elements.astype(np.int64)

    def shifted(self, size: Size, shift: int) -> Size:
        """``size + shift``; equal expressions have equal names."""
        if isinstance(size, int):
            return size + shift
        if size is None or not shift:
            return size
        base, before, divisor = self._parts_of(size)
        return self._quotient(base, before + shift * divisor, divisor)

    def divided(self, size: Size, divisor: int) -> Size:
        """``size // divisor``; equal expressions have equal names."""
        if isinstance(size, int):
            return size // divisor
        if size is None or divisor == 1:
            return size
        base, shift, before = self._parts_of(size)
        return self._quotient(base, shift, before * divisor)

    def added(self, a: Size, b: Size) -> Size:
        """``a + b``; None where it is neither a number nor a size and a number that is not below 0.

        A size less a number may be below 0, and means something else then. The sizes of inputs are
        above 0.
        """
        if isinstance(a, int) and isinstance(b, int):
            return bounded(a + b)
        number, size = (a, b) if isinstance(a, int) else (b, a)
        if not isinstance(number, int) or not isinstance(size, str):
            return None
        base, shift, divisor = self._parts_of(size)
        least = 1 if base in self._taken else 0
        return self.shifted(size, number) if least + shift + number * divisor >= 0 else None

    def subtracted(self, a: Size, b: Size) -> Size:
        """``a - b``, as `added`; the difference of two sizes is a number or None."""
        if isinstance(b, int):
            return self.added(a, -b)
        return self.difference(a, b)

    def quotient(self, a: Size, b: Size) -> Size:
        """``a // b`` of numbers that are not below 0, or of a size by a number."""
        if isinstance(a, int) and isinstance(b, int):
            return a // b if a >= 0 and b > 0 else None
        return self.divided(a, b) if isinstance(b, int) and b > 0 else None

    def difference(self, a: Size, b: Size) -> int | None:
        """``a - b``, where it is the same number whatever the sizes are."""
        if isinstance(a, int) and isinstance(b, int):
            return a - b
        if not isinstance(a, str) or not isinstance(b, str):
            return None
        base, shift, divisor = self._parts_of(a)
        other, less, by = self._parts_of(b)
        if (base, divisor) != (other, by) or (shift - less) % divisor:
            return None
        return (shift - less) // divisor

    def _parts_of(self, size: str) -> tuple[str, int, int]:
        """(base, shift, divisor) of a size that is (base + shift) // divisor."""
        return self._parts.get(size, (size, 0, 1))

    def _quotient(self, base: str, shift: int, divisor: int) -> Size:
        """The name of (base + shift) // divisor."""
        whole = f"{base}{shift:+d}" if shift else base
        if whole == base and divisor == 1:
            return base
        name = self._expression(whole if divisor == 1 else f"({whole})//{divisor}")
        if isinstance(name, str):
            self._parts[name] = (base, shift, divisor)
        return name

    def _expression(self, name: str) -> Size:
        """`name`; None if it is long or means something else."""
        return None if len(name) > _LONGEST_NAME or name in self._taken else name

    def _declared(self, value: ir.Value) -> tuple[Size, ...]:
        sizes = enumerate(value.shape or ())
        return tuple(
            size if isinstance(size, int) else size.value or self._unique(value, i)
            for i, size in sizes
        )

    def _unique(self, value: ir.Value, axis: int) -> str:
        """The name of a size of which nothing is known."""
        if (value, axis) not in self._unnamed:
            self._count += 1
            while f"{_UNNAMED}{self._count}" in self._taken:
                self._count += 1
            self._unnamed[value, axis] = f"{_UNNAMED}{self._count}"
        return self._unnamed[value, axis]


Rule = Callable[[ir.Node, Shapes], "KnownTensor | None"]
"""What is known of the output of a node, given what is known of its inputs."""


def constant_of(value: ir.Value | None) -> NDArray[np.generic] | None:
    """The elements of a constant; None for a default that the caller may override."""
    if value is None or not value.is_initializer() or value.is_graph_input():
        return None
    return None if value.const_value is None else value.const_value.numpy()


def element_count(sizes: Sequence[Size]) -> int | None:
    """The product of `sizes`, if every one is a number."""
    numbers = [size for size in sizes if isinstance(size, int)]
    return math.prod(numbers) if len(numbers) == len(sizes) else None


_SAFE = 2**31  # beyond it arithmetic may wrap around, depending on the type


def bounded(size: Size) -> Size:
    """`size`, unless it is a number that does not fit into every integer type."""
    return None if isinstance(size, int) and not -_SAFE <= size < _SAFE else size


def broadcast(shapes: Sequence[Sequence[Size]]) -> tuple[Size, ...]:
    """The shape of a sum of tensors of `shapes`, in a graph that runs."""
    rank = max(len(shape) for shape in shapes)
    padded: list[list[Size]] = [[*[1] * (rank - len(shape)), *shape] for shape in shapes]
    columns = zip(*padded, strict=True)
    return tuple(_common_size({size for size in sizes if size != 1}) for sizes in columns)


def _common_size(sizes: set[Size]) -> Size:
    """The size of an axis from those that are not 1."""
    if len(sizes) < 2:
        return next(iter(sizes), 1)
    numbers = [size for size in sizes if isinstance(size, int)]
    return numbers[0] if len(numbers) == 1 else None


def _mul(a: Size, b: Size) -> Size:
    if isinstance(a, int) and isinstance(b, int):
        return bounded(a * b)
    if a == 0 or b == 0:
        return 0
    return b if a == 1 else a if b == 1 else None


def _mod(a: Size, b: Size) -> Size:
    if isinstance(a, int) and isinstance(b, int):
        return a % b if a >= 0 and b > 0 else None
    return 0 if b == 1 else None


def _abs(a: Size) -> Size:
    return abs(a) if isinstance(a, int) else a


def _neg(a: Size) -> Size:
    return bounded(-a) if isinstance(a, int) else None


def _not(a: Size) -> Size:
    return not a if isinstance(a, int) else None


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


def _extreme(choose: Callable[..., int], with_name: int) -> Callable[..., Size]:
    """Min or Max; of a number up to 0 and a named size, argument number `with_name`."""

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
        return (number, name)[with_name]

    return function


ELEMENTWISE: dict[str, Callable[..., Size]] = {
    "Mul": _mul,
    "Mod": _mod,
    "Abs": _abs,
    "Neg": _neg,
    "Not": _not,
    "Equal": _equal,
    "Where": _where,
    "Min": _extreme(min, 0),
    "Max": _extreme(max, 1),
}
