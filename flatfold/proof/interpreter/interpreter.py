"""A float64 interpreter for the operators that a linear region may hold, with its error bound.

Every value is carried twice: y, and its magnitude companion M, the same computation on absolute
parameters and inputs. Rounding errors of a computation are bounded by a multiple of u * M
(Higham, Accuracy and Stability of Numerical Algorithms, ch. 3). Shares no code with `passes`: this
is the second opinion on what the operators mean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from flatfold.proof.interpreter.convolution import Array
from flatfold.proof.interpreter.operators import RULES
from flatfold.proof.interpreter.pair import Pair, Unsupported


def evaluate(
    nodes: Iterable[ir.Node],
    feeds: Mapping[ir.Value, Pair],
    lift: Callable[[Array], Any] = lambda array: array,
) -> dict[ir.Value, Pair]:
    """Run `nodes`, given in topological order; constants are read off the graph.

    `lift` makes of a constant the kind of array that the feeds are.
    """
    known: dict[ir.Value, Pair] = dict(feeds)
    for node in nodes:
        rule = RULES.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        if rule is None:
            raise Unsupported(f"{node.domain or 'ai.onnx'}.{node.op_type}")
        arguments = [None if v is None else known.get(v) or _constant(v, lift) for v in node.inputs]
        known[node.outputs[0]] = rule(node, arguments)
    return known


def _constant(value: ir.Value, lift: Callable[[Array], Any]) -> Pair:
    tensor = ir.convenience.get_const_tensor(value)
    if tensor is None:
        raise Unsupported(f"{value.name} is neither computed nor constant")
    array: Any = tensor.numpy()
    if array.dtype.kind in "iu":  # ranges and pads, which float64 could not hold exactly
        return Pair(array, array)
    numbers = lift(array).astype(np.float64)
    return Pair(numbers, np.abs(numbers))
