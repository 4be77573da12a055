"""What each ONNX operator means as a stencil: one small function per operator.

`meaning(node)` gives `Applied(source, stencil)` for an operator with one data input, or
`Summed(((sign, value), ...))` for a sum of several, `Joined(values, axis)` for several side by
side, and raises Decline where the operator is not linear with constant weights, saying why.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from flatfold.passes.activations import ACTIVATIONS
from flatfold.passes.elementary import diagonal, stencil
from flatfold.passes.geometry import Decline
from flatfold.passes.layers import LAYERS
from flatfold.passes.norms import NORMS
from flatfold.passes.passages import CARRIERS, read_view
from flatfold.passes.reading import (
    Applied,
    Linear,
    Summed,
    channels,
    constant,
    data_and_constant,
    ints,
    number,
    per_channel,
    scaled,
    source,
    window,
)
from flatfold.passes.samplers import SAMPLERS
from flatfold.passes.selectors import SELECTORS, read_shuffle

FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE)


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


def read_product(node: ir.Node) -> Applied:
    data, operand, swapped = data_and_constant(node)
    if node.op_type == "Div" and swapped:
        raise Decline("NONLINEAR", "a constant is divided by data")
    factor, axes = per_channel(operand, data)
    if node.op_type == "Div":
        if not np.all(factor != 0):
            raise Decline("NONFINITE", f"the divisor is 0 in channel {int(np.argmin(factor != 0))}")
        factor = 1.0 / factor
    return Applied(data, diagonal(factor, None, axes))


def read_sum(node: ir.Node) -> Applied | Summed:
    signs = [-1 if node.op_type == "Sub" and i == 1 else 1 for i in range(len(node.inputs))]
    arrays = [constant(value) for value in node.inputs]
    if all(array is None for array in arrays):
        return Summed(tuple((s, source(node, i)) for i, s in enumerate(signs)))
    if len(arrays) != 2:
        count = sum(array is not None for array in arrays)
        raise Decline("CONSTANT", f"{count} of the {len(arrays)} operands of a sum are constants")
    data, operand, swapped = data_and_constant(node)
    sign_data, sign_constant = (signs[1], signs[0]) if swapped else (signs[0], signs[1])
    numbers, axes = per_channel(operand, data)
    ones = np.full(len(numbers), float(sign_data))
    return Applied(data, diagonal(ones, sign_constant * numbers, axes))


def read_same(node: ir.Node) -> Applied:
    for mask in node.outputs[1:]:
        if mask.uses() or mask.is_graph_output():
            raise Decline("OUTPUT", f"the mask {mask.name}, the second output, is used")
    training = node.inputs[2] if len(node.inputs) > 2 else None
    mode = constant(training)
    if training is not None and (mode is None or mode):
        found = "not a constant" if mode is None else "1"
        raise Decline("TRAINING-MODE", f"the training mode {training.name} of Dropout is {found}")
    return scaled(source(node), -1.0 if node.op_type == "Neg" else 1.0)


def read_average_pool(node: ir.Node) -> Applied:
    kernel = ints(node, "kernel_shape", ())
    strides, dilations, begin, end = window(node, kernel)
    if number(node, "ceil_mode", 0) != 0:
        raise Decline("CEIL-MODE", f"the last window of {kernel} may hang over the edge")
    if any((*begin, *end)) and number(node, "count_include_pad", 0) == 0:
        pads = f"{begin} at the start and {end} at the end"
        raise Decline("COUNT-PAD", f"the mean leaves the padding out, {pads}, so its weights vary")
    count = channels(source(node))
    mean = np.full((count, 1, *kernel), 1.0 / np.prod(kernel))
    form = stencil(mean, groups=count, strides=strides, dilations=dilations, begin=begin, end=end)
    return Applied(source(node), form)


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
    **CARRIERS,
    **LAYERS,
    **NORMS,
    **SAMPLERS,
    **SELECTORS,
    "Reshape": read_reshape,
}
