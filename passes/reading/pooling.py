"""What each ONNX operator means as a stencil: one small function per operator.

`meaning(node)` gives `Applied(source, stencil)` for an operator with one data input, or
`Summed(((sign, value), ...))` for a sum of several, `Joined(values, axis)` for several side by
side, and raises Decline where the operator is not linear with constant weights, saying why.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from flatfold.passes.decline import Decline
from flatfold.passes.reading.least_sizes import least_sizes
from flatfold.passes.reading.meaning import Applied, Transparent
from flatfold.passes.reading.node import (
    channel_count,
    ints,
    number,
    rank,
    source,
    spatial_sizes,
    window,
)
from flatfold.passes.stencil.geometry import Ints
from flatfold.passes.stencil.stencil import convolution


def read_average(node: ir.Node) -> Applied | Transparent:
    """A convolution; or a mean that leaves the padding out, which a map of the channels passes."""
    try:
        return read_average_pool(node)
    except Decline as why:
        counts = number(node, "count_include_pad", 0) != 0
        if why.code not in ("COUNT-PAD", "CEIL-MODE") or counts:
            raise
        require_filled(node)
        return Transparent(source(node), spatial=rank(source(node)) - 2, matrix=None)


def read_average_pool(node: ir.Node) -> Applied:
    kernel = ints(node, "kernel_shape", ())
    strides, dilations, begin, end = window(node, kernel)
    if number(node, "ceil_mode", 0) != 0:
        raise Decline("CEIL-MODE", f"the last window of {kernel} may hang over the edge")
    if any((*begin, *end)) and number(node, "count_include_pad", 0) == 0:
        pads = f"{begin} at the start and {end} at the end"
        raise Decline("COUNT-PAD", f"the mean leaves the padding out, {pads}, so its weights vary")
    _require_whole_windows(node, kernel, dilations, begin, end)
    count = channel_count(source(node))
    mean = np.full((count, 1, *kernel), 1.0 / np.prod(kernel))
    form = convolution(
        mean, groups=count, strides=strides, dilations=dilations, begin=begin, end=end
    )
    return Applied(source(node), form)


def _require_whole_windows(
    node: ir.Node, kernel: Ints, dilations: Ints, begin: Ints, end: Ints
) -> None:
    """Decline where the map may be smaller than the window: ONNX Runtime still gives one mean.

    By the standard there is no output then, and a convolution has none.
    """
    sizes = least_sizes(source(node))
    some = "may be" if None in spatial_sizes(source(node)) else "is"
    for k, d, first, last, size in zip(kernel, dilations, begin, end, sizes, strict=True):
        if first + size + last < d * (k - 1) + 1:
            larger = f"{some} larger than the padded map, which has {sizes} or more"
            raise Decline("SHAPE", f"a window of {kernel} {larger}")


def filled_window(node: ir.Node) -> tuple[Ints, Ints, Ints, Ints]:
    """`window` of a MaxPool of which none may lie in the padding alone; Decline of any other."""
    kernel = ints(node, "kernel_shape", ())
    strides, dilations, begin, end = window(node, kernel)
    if number(node, "ceil_mode", 0) != 0 or len(node.outputs) > 1:
        raise Decline("CEIL-MODE", f"the last window of {kernel} may hang over the edge")
    require_filled(node)
    return strides, dilations, begin, end


def require_filled(node: ir.Node) -> None:
    """Decline where a window of a pool may lie in the padding alone. The last one of ceil_mode
    starts in the map, or in the padding in front of it."""
    kernel = ints(node, "kernel_shape", ())
    _, dilations, begin, end = window(node, kernel)
    in_padding = any(n >= k for n, k in zip((*begin, *end), kernel * 2, strict=True))
    if in_padding or (max(dilations) > 1 and any((*begin, *end))):
        pads = f"{begin} at the start and {end} at the end"
        raise Decline("PAD-MODE", f"a window of {kernel} may lie in the padding alone, {pads}")
