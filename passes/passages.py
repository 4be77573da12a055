"""Operators that a map of the channels passes through: T(A x + b) = A' T(x) + b'.

A mean over all pixels, a Flatten or Reshape that only drops or adds axes or divides the pixels
anew, a Transpose between channels-first and channels-last. What is in front of them joins what is
behind them.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import onnx_ir as ir

from flatfold.passes.geometry import Decline
from flatfold.passes.reading import Carried, constant, ints, known, number, rank, source

MOST_AXES = 3  # a convolution has no more


def read_global_mean(node: ir.Node) -> Carried:
    return Carried(source(node), spatial=rank(source(node)) - 2, matrix=None)


def read_mean(node: ir.Node) -> Carried:
    """The mean over every axis but the batch and the channels."""
    data, rank_ = source(node), rank(source(node))
    listed = ints(node, "axes", ())
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        given = constant(node.inputs[1])
        if given is None:
            name = node.inputs[1].name
            raise Decline("NOT-CONSTANT", f"the axes {name} of the mean are not constant")
        listed = tuple(int(axis) for axis in given.reshape(-1))
    axes = sorted(axis % rank_ for axis in listed)
    keep = bool(number(node, "keepdims", 1))
    if rank_ > 2 and axes == list(range(2, rank_)):
        return Carried(data, spatial=rank_ - 2 if keep else 0, matrix=None)
    if rank_ > 2 and axes == list(range(1, rank_ - 1)):
        return Carried(data, spatial=None, matrix=0)
    raise Decline("NONLINEAR", "the mean is not over the pixels")


def read_view(node: ir.Node) -> Carried:
    """[N, C, ..] to [N, C * ..], [N, C] to [N, C, 1, ..]; or only the other axes divided anew."""
    data, before, after = source(node), known(source(node)), known(node.outputs[0])
    if None in before[1:] or None in after[1:]:
        raise Decline("NONLINEAR", "the sizes are not known")
    inner, outer = ([n or 0 for n in sizes[1:]] for sizes in (before, after))
    if node.op_type == "Flatten" and int(number(node, "axis", 1)) != 1:
        raise Decline("NONLINEAR", "the batch is flattened too")
    if before[0] is not None and after[0] != before[0]:
        raise Decline("NONLINEAR", "the batch changes")
    if len(outer) == 1 and outer[0] == math.prod(inner):
        return Carried(data, 0, 0 if len(inner) == 1 else None, math.prod(inner[1:]))
    if len(inner) == 1 and outer[0] == inner[0] and math.prod(outer[1:]) == 1:
        return Carried(data, None, len(outer) - 1)
    if min(len(inner), len(outer)) > 1 and math.prod(inner) == math.prod(outer):
        first = inner[0] == outer[0] and len(outer) - 1 <= MOST_AXES
        last = inner[-1] == outer[-1]
        if first or last:
            return Carried(data, len(outer) - 1 if first else None, 0 if last else None)
    raise Decline("NONLINEAR", f"{node.op_type} mixes channels and pixels")


def read_transpose(node: ir.Node) -> Carried:
    order, rank_ = ints(node, "perm", ()), rank(source(node))
    if len(order) != rank_ or order[0] != 0 or rank_ < 3:
        raise Decline("NONLINEAR", "the batch is moved")
    spatial = rank_ - 2 if order[1] == 1 else 0 if order[-1] == 1 else None
    matrix = 0 if order[-1] == rank_ - 1 else rank_ - 2 if order[1] == rank_ - 1 else None
    return Carried(source(node), spatial, matrix)


CARRIERS: dict[str, Callable[[ir.Node], Carried]] = {
    "Flatten": read_view,
    "GlobalAveragePool": read_global_mean,
    "ReduceMean": read_mean,
    "Squeeze": read_view,
    "Transpose": read_transpose,
    "Unsqueeze": read_view,
}
