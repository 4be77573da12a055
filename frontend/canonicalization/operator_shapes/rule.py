"""What a rule for the output sizes of an operator reads of a node."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from flatfold.frontend.canonicalization.symbolic_dims import Shapes, Size

Sizes = tuple[Size, ...]


@dataclass(frozen=True)
class Operands:
    """The inputs and attributes of `node`, as far as `shapes` knows them."""

    node: ir.Node
    shapes: Shapes

    def has(self, i: int) -> bool:
        """Whether input `i` is there."""
        return i < len(self.node.inputs) and self.node.inputs[i] is not None

    def sizes(self, i: int = 0) -> Sizes | None:
        """The shape of input `i`; None if it is unknown or there is no such input."""
        return self.shapes.sizes(self.node.inputs[i]) if self.has(i) else None

    def array(self, i: int) -> NDArray[Any] | None:
        """The elements of input `i`, if they are constant."""
        return self.shapes.array(self.node.inputs[i]) if self.has(i) else None

    def named(self, name: str) -> bool:
        """Whether the node has the attribute."""
        return name in self.node.attributes

    def integer(self, name: str, default: int) -> int:
        """An integer attribute."""
        return self.node.attributes[name].as_int() if self.named(name) else default

    def text(self, name: str, default: str) -> str:
        """A string attribute."""
        return self.node.attributes[name].as_string() if self.named(name) else default

    def integers(self, name: str) -> list[int] | None:
        """A list of integers in an attribute; None if the node has no such attribute."""
        return list(self.node.attributes[name].as_ints()) if self.named(name) else None

    def numbers(self, name: str, i: int) -> list[int] | None:
        """Integers that older opsets have in the attribute `name`, newer ones in input `i`."""
        if self.named(name):
            return self.integers(name)
        elements = self.shapes.integers(self.node.inputs[i]) if self.has(i) else None
        return None if elements is None else elements.ravel().tolist()

    def given(self, name: str, i: int) -> bool:
        """Whether the node has what `numbers` reads, known or not."""
        return self.named(name) or self.has(i)

    def outputs(self, sizes: Sizes | None) -> list[Sizes | None]:
        """All outputs of the same shape."""
        return [sizes] * len(self.node.outputs)


OperatorRule = Callable[[Operands], Sequence["Sizes | None"]]
"""The shapes of the outputs of a node; fewer are unknown, as is None in place of a size.

Errors that indexing and arithmetic raise mean that the node is malformed.
"""


def axis_in(axis: int, rank: int) -> int:
    """`axis`, counted from the start; ValueError if there is no such axis."""
    if not -rank <= axis < rank:
        raise ValueError(f"axis {axis} of {rank}")
    return axis % rank


def unknown(rank: int) -> Sizes:
    """A shape of which only the rank is known."""
    return (None,) * rank


def product(sizes: Sequence[Size]) -> Size:
    """The product of `sizes`, if it is a number or one name."""
    names = [size for size in sizes if not isinstance(size, int)]
    number = math.prod(size for size in sizes if isinstance(size, int))
    if not names or number == 0:
        return number
    return names[0] if len(names) == 1 and number == 1 else None


def replaced(sizes: Sizes, axis: int, size: Size) -> Sizes:
    """`sizes` with `size` at `axis`."""
    return (*sizes[:axis], size, *sizes[axis + 1 :])


def single(value: object) -> int | None:
    """The integer in an array of one element, or in a number."""
    if value is None:
        return None
    array = np.asarray(value)
    return int(array.item()) if array.size == 1 else None
