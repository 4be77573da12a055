"""What each ONNX operator means as a stencil: one small function per operator.

`meaning(node)` gives `Applied(source, stencil)` for an operator with one data input, or
`Summed(((sign, value), ...))` for a sum of several, `Joined(values, axis)` for several side by
side, and raises Decline where the operator is not linear with constant weights, saying why.
"""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from flatfold.passes.collapse_activations import ACTIVATIONS
from flatfold.passes.decline import Decline
from flatfold.passes.fold_batchnorm import NORMS, read_product, read_sum
from flatfold.passes.reading.channels import (
    read_concat,
    read_gather,
    read_shuffle,
)
from flatfold.passes.reading.layers import LAYERS
from flatfold.passes.reading.meaning import Applied, Joined, Linear, scale
from flatfold.passes.reading.node import (
    FLOATS,
    constant,
    source,
)
from flatfold.passes.reading.pooling import read_average_pool
from flatfold.passes.reading.transparent import TRANSPARENT, read_view
from flatfold.passes.rewrite_shifts import (
    SAMPLERS,
    read_pad,
    read_slice,
)

CHANNEL_READERS: dict[str, Callable[[ir.Node], Applied | Joined]] = {
    "Concat": read_concat,
    "Gather": read_gather,
    "Pad": read_pad,
    "Slice": read_slice,
}


def meaning(node: ir.Node) -> Linear:
    """The linear meaning of a node; raises Decline with the reason if it has none."""
    reader = READERS.get(node.op_type) if node.domain in ("", "ai.onnx") else None
    if reader is None:
        raise Decline("NONLINEAR", f"{node.op_type} is not linear")
    dtype = node.outputs[0].dtype
    if dtype is not None and dtype not in FLOATS:
        if node.op_type not in LAYERS:  # of indices and sizes nobody needs to be told
            raise Decline("NONLINEAR", f"{dtype.name} is not a floating-point type")
        raise Decline("DTYPE", f"{dtype.name} is not a floating-point type")
    return reader(node)


def read_same(node: ir.Node) -> Applied:
    for mask in node.outputs[1:]:
        if mask.uses() or mask.is_graph_output():
            raise Decline("OUTPUT", f"the mask {mask.name}, the second output, is used")
    training = node.inputs[2] if len(node.inputs) > 2 else None
    mode = constant(training)
    if training is not None and (mode is None or mode):
        found = "not a constant" if mode is None else "1"
        raise Decline("TRAINING-MODE", f"the training mode {training.name} of Dropout is {found}")
    return scale(source(node), -1.0 if node.op_type == "Neg" else 1.0)


def read_reshape(node: ir.Node) -> Linear:
    """The end of a shuffle of channels; or axes dropped, added or divided anew."""
    try:
        return read_shuffle(node)
    except Decline:
        return read_view(node)


READERS: dict[str, Callable[[ir.Node], Linear]] = {
    "Add": read_sum,
    "AveragePool": read_average_pool,
    "Div": read_product,
    "Dropout": read_same,
    "Identity": read_same,
    "Mul": read_product,
    "Neg": read_same,
    "Sub": read_sum,
    "Sum": read_sum,
    **ACTIVATIONS,
    **TRANSPARENT,
    **LAYERS,
    **NORMS,
    **SAMPLERS,
    **CHANNEL_READERS,
    "Reshape": read_reshape,
}
