"""A value and its magnitude companion, and reading operands and attributes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from flatfold.proof.interpreter.convolution import Array


@dataclass(frozen=True)
class Pair:
    """A value and its magnitude companion."""

    y: Array
    m: Array

    @property
    def places(self) -> Array:
        """The plain numbers, for where they say which pixels are looked at."""
        return getattr(self.y, "value", self.y)


class Unsupported(Exception):
    """The interpreter does not know the operator."""


def attribute(node: ir.Node, name: str, default: Any) -> Any:
    """An attribute of a node, or its default, which has single precision as every attribute has."""
    found = node.attributes.get(name)
    if found is not None:
        return found.value
    return float(np.float32(default)) if isinstance(default, float) else default


def given(argument: Pair | None) -> Pair:
    """An operand that must be there."""
    if argument is None:
        raise Unsupported("a missing operand")
    return argument
