"""Evaluates nodes in float64, with a bound for their rounding errors.

Every value is computed twice: y, and its magnitude companion M, the same computation on absolute
parameters and inputs. Rounding errors of a computation are bounded by a multiple of u * M
(Higham, Accuracy and Stability of Numerical Algorithms, ch. 3). It shares no code with `passes`, so
an error there cannot repeat here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from flatfold.proof.interpreter.convolution import Array
from flatfold.proof.interpreter.operators import traits_of
from flatfold.proof.interpreter.pair import Pair, Unsupported


def evaluate(
    nodes: Iterable[ir.Node],
    feeds: Mapping[ir.Value, Pair],
    lift: Callable[[Array], Any] = lambda array: array,
) -> dict[ir.Value, Pair]:
    """The values of `feeds` and of all outputs of `nodes`, which are in topological order.

    Constants are taken from the graph; `lift` turns them into the kind of array that the feeds are.
    Raises Unsupported.
    """
    known: dict[ir.Value, Pair] = dict(feeds)
    for node in nodes:
        rule = traits_of(node).rule if node.domain in ("", "ai.onnx") else None
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
