"""Values that a change would multiply by zero, though the graph did not read them before.

0 * x is 0 for every finite x, and not a number for others. So a kernel with more zero weights than
what it replaces (strips in a square, channels that were not chosen) is exact for finite values.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from flatfold.passes.decline import Decline
from flatfold.passes.reading.deferred import root_value
from flatfold.passes.reading.node import constant, number
from flatfold.passes.rewrite import Change

NOTE = "exact for finite inputs: zero weights meet values that were not read before"

MULTIPLYING = ("Conv", "ConvTranspose", "Gemm", "MatMul", "Mul")
UNBOUNDED = ("Cast", "Div", "Exp", "Log", "Pow", "Reciprocal", "Sqrt", "Tan")
COPYING = (
    *("Concat", "Flatten", "Gather", "Identity", "LeakyRelu", "MaxPool", "Neg", "Pad", "Relu"),
    *("Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"),
)
MOST_STEPS = 64


def meets_unread(change: Change) -> bool:
    """Whether the new nodes multiply by zero what the old ones did not read.

    Raises Decline where such a value may be infinite though the inputs of the graph are finite.
    """
    old = change.region.nodes
    normed = any(node.op_type == "BatchNormalization" for node in old)  # rows of its zeros are read
    if _zeros(change.replacement.nodes, normed) <= _zeros(old, False):
        return False
    for term in change.region.form.live:
        maker = _unbounded_maker(root_value(term.source))
        if maker is not None:
            made = f"{maker.outputs[0].name}, the result of a {maker.op_type}"
            raise Decline("INFINITE", f"zero weights would meet {made}, which may be infinite")
    return True


def _zeros(nodes: Sequence[ir.Node], whole_rows_are_read: bool) -> int:
    total = 0
    for node in nodes:
        array = constant(node.inputs[1]) if node.op_type in MULTIPLYING else None
        if array is None or not array.size or node.domain:
            continue
        zero = array == 0
        if whole_rows_are_read and array.ndim > 1:
            zero = zero[~np.all(zero.reshape(len(zero), -1), axis=1)]
        total += int(np.count_nonzero(zero))
    return total


def _unbounded_maker(value: ir.Value) -> ir.Node | None:
    """The node that may make an infinite value, or no number, of finite ones; None if none does.

    Behind copies any such node; behind others one whose own constants make it so for every input.
    """
    stack, seen = [(value, True)], 0
    while stack and seen < MOST_STEPS:
        reached, copied = stack.pop()
        node, seen = reached.producer(), seen + 1
        if node is None or node.op_type == "Constant":
            continue
        own = node.domain in ("", "ai.onnx")
        if _is_never_finite(node) or (copied and (not own or _is_unbounded(node))):
            return node
        copied = copied and node.op_type in COPYING
        stack += [(source, copied) for source in node.inputs if source is not None]
    return None


def _is_unbounded(node: ir.Node) -> bool:
    divided = node.op_type == "Div" and constant(node.inputs[1]) is not None
    return node.op_type in UNBOUNDED and not divided


def _is_never_finite(node: ir.Node) -> bool:
    """Whether a negative variance, or a constant of a sum or product that is not finite, is there.

    Weights of layers are not looked at, which would take long.
    """
    constants = [constant(source) for source in node.inputs]
    if node.op_type == "BatchNormalization" and constants[4] is not None:
        variance = constants[4] + number(node, "epsilon", 1e-5)
        return not bool(np.all(variance > 0))
    if node.op_type not in ("Add", "Div", "Mul", "Sub"):
        return False
    floats = (array for array in constants if array is not None and array.dtype.kind == "f")
    return not all(bool(np.all(np.isfinite(array))) for array in floats)
