"""A value with its magnitude companion; operands and attributes of a node."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from flatfold.proof.interpreter.convolution import Array


@dataclass(frozen=True)
class Pair:
    """A value y and its magnitude companion M: the same computation on absolute values."""

    y: Array
    m: Array

    @property
    def coordinates(self) -> Array:
        """The values as plain numbers, for an operand that says which pixels are read."""
        return getattr(self.y, "value", self.y)


class Unsupported(Exception):
    """The interpreter does not know the operator."""


def attribute(node: ir.Node, name: str, default: Any) -> Any:
    """An attribute of a node, or its default, rounded to single precision like every attribute."""
    present = node.attributes.get(name)
    if present is not None:
        return present.value
    return float(np.float32(default)) if isinstance(default, float) else default


def given(argument: Pair | None) -> Pair:
    """An operand that must be present. Raises Unsupported where it is missing."""
    if argument is None:
        raise Unsupported("a missing operand")
    return argument
