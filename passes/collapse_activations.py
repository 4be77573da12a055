"""Remove activations that have become linear, so that the layers around them compose.

VanillaNet (Chen et al. 2023) trains with (1 - l) * A(x) + l * x, l growing from 0 to 1. At l = 1
the activation is the identity. Before that, with A = Relu, it is one LeakyRelu:

    a * relu(x) + b * x = (a + b) * LeakyRelu(x; alpha = b / (a + b)),    a + b != 0
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir

from flatfold.passes.decline import Decline
from flatfold.passes.reading import Reader
from flatfold.passes.reading.affine import Affine, Term
from flatfold.passes.reading.deferred import Deferred, deferred_value, origin_of
from flatfold.passes.reading.meaning import Applied, scale
from flatfold.passes.reading.node import Bounds, clip_limits, number, source, weights
from flatfold.passes.rewrite import Region, Rewrite
from flatfold.passes.stencil.stencil import diagonal


class CollapseActivations(Rewrite):
    """LeakyRelu(x; alpha = 1) = x, PRelu(x; 1) = x, Clip(x; a, b) = x for a <= x <= b.

    And a * relu(x) + b * x is one LeakyRelu.

    *Given* an activation that training has made linear (VanillaNet, 2023) or whose input
    cannot reach its bend (Relu of Relu, Clip(0, 1) of Sigmoid). *Result* its input.

    *Declines when* a slope is not exactly 1 and the input may be negative; a limit may be reached
    or is computed. Such an activation is not linear, and nothing is said about it.
    """

    name = "collapse-activations"

    def readers(self) -> Mapping[str, Reader]:
        return ACTIVATIONS

    def claims(self, region: Region) -> bool:
        read = any(node.op_type in ACTIVATIONS for node in region.meanings)
        return read or any(_is_joined(term) for term in region.form.live)

    def simplify_sum(self, form: Affine, dtype: ir.DataType | None) -> Affine:
        return join_relu_and_identity(form, dtype)


def _is_joined(term: Term) -> bool:
    """Whether the source is a LeakyRelu that this pass made of a Relu and its input."""
    origin = origin_of(term.source)
    return origin is not None and origin.op_type == "LeakyRelu"


def read_relu(node: ir.Node) -> Applied:
    data = source(node)
    if value_bounds(data)[0] < 0:
        raise Decline("NONLINEAR", "Relu is not linear")
    return scale(data)


def read_leaky_relu(node: ir.Node) -> Applied:
    """x where alpha is 1 (VanillaNet's schedule at its end), or where x is never negative."""
    data, alpha = source(node), number(node, "alpha", 0.01)
    if alpha != 1 and value_bounds(data)[0] < 0:
        raise Decline("NONLINEAR", f"LeakyRelu with alpha {alpha:g} is not linear")
    return scale(data)


def read_prelu(node: ir.Node) -> Applied:
    data = source(node)
    if value_bounds(data)[0] < 0:
        slopes = weights(node, 1, "slope")
        other_slopes = int(np.count_nonzero(slopes != 1))
        if other_slopes:
            raise Decline("NONLINEAR", f"{other_slopes} of {slopes.size} slopes of PRelu are not 1")
    return scale(data)


def read_clip(node: ir.Node) -> Applied:
    data, limits = source(node), clip_limits(node)
    if limits is None:
        names = ", ".join(str(value.name) for value in node.inputs[1:] if value is not None)
        raise Decline("NOT-CONSTANT", f"the limits of Clip are not constant: {names}")
    low, high = value_bounds(data)
    if low < limits[0] or high > limits[1]:
        raise Decline("NONLINEAR", "Clip is not linear")
    return scale(data)


ACTIVATIONS: dict[str, Reader] = {
    "Clip": read_clip,
    "LeakyRelu": read_leaky_relu,
    "PRelu": read_prelu,
    "Relu": read_relu,
}


UNBOUNDED: Bounds = (-math.inf, math.inf)
FIXED: dict[str, Bounds] = {
    "Abs": (0.0, math.inf),
    "Exp": (0.0, math.inf),
    "HardSigmoid": (0.0, 1.0),
    "Relu": (0.0, math.inf),
    "Sigmoid": (0.0, 1.0),
    "Softmax": (0.0, 1.0),
    "Softplus": (0.0, math.inf),
    "Sqrt": (0.0, math.inf),
    "Tanh": (-1.0, 1.0),
}

# Their outputs are some of their first input's values.
SELECTING = (
    "Flatten",
    "Gather",
    "GlobalMaxPool",
    "Identity",
    "MaxPool",
    "Reshape",
    "Slice",
    "Split",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
)

# Means: never below 0 where the input is not, but rounding may take them past an upper bound.
AVERAGING = ("AveragePool", "GlobalAveragePool", "ReduceMean")

MOST_STEPS = 16


def value_bounds(value: ir.Value | None, steps: int = MOST_STEPS) -> Bounds:
    """(low, high) such that low <= every element <= high, NaN aside."""
    node = value.producer() if value is not None else None
    if node is None or node.domain != "" or steps == 0:
        return UNBOUNDED
    if node.op_type in FIXED:
        return FIXED[node.op_type]
    if node.op_type in SELECTING:
        return value_bounds(node.inputs[0], steps - 1)
    if node.op_type in AVERAGING:
        return (0.0, math.inf) if value_bounds(node.inputs[0], steps - 1)[0] >= 0 else UNBOUNDED
    if node.op_type == "Clip":
        given, limits = value_bounds(node.inputs[0], steps - 1), clip_limits(node)
        if limits is None:
            return given
        low, high = (min(max(end, limits[0]), limits[1]) for end in given)  # max wins over min
        return low, high
    return UNBOUNDED


LEAST, MOST = 1 / 16, 16.0  # of |a + b|: then LeakyRelu(x) is about as large as the two terms


def join_relu_and_identity(form: Affine, dtype: ir.DataType | None) -> Affine:
    """The form with a * relu(x) and b * x as one term over LeakyRelu(x), where both are there."""
    if len(form.live) < 2 or dtype is None:
        return form
    plain = {term.source: term for term in form.live}
    for term in form.live:
        inner = _under_relu(term.source)
        if inner is not None and inner in plain:
            joint = _as_leaky_relu(term, plain[inner], dtype)
            if joint is not None:
                kept = [t for t in form.live if t is not term and t is not plain[inner]]
                return join_relu_and_identity(replace(form, terms=(*kept, joint)), dtype)
    return form


def _under_relu(value: ir.Value) -> ir.Value | None:
    node = value.producer()
    if node is None or (node.op_type, node.domain) != ("Relu", ""):
        return None
    return node.inputs[0]


def _as_leaky_relu(rectified: Term, line: Term, dtype: ir.DataType) -> Term | None:
    """a * relu(x) and b * x as one term, if a and b are single numbers; else None."""
    numbers = [_number(term) for term in (rectified, line)]
    if numbers[0] is None or numbers[1] is None or rectified.source.type is None:
        return None
    total = numbers[0] + numbers[1]
    if total == 0 or not _keeps_size(total, numbers[1]):
        return None
    total = total.astype(dtype.numpy()).astype(np.float64)  # 1 - l + l is 1 but for rounding
    alpha = (numbers[1] / total).astype(np.float32).astype(np.float64)
    if dtype is ir.DataType.DOUBLE and alpha * total != numbers[1]:
        return None  # the attribute has single precision
    attributes = {"alpha": ir.Attr("alpha", ir.AttributeType.FLOAT, alpha)}
    origin = Deferred("LeakyRelu", line.source, (), attributes)
    name = f"{rectified.source.name}.leaky"
    value = deferred_value(origin, name, rectified.source.shape, rectified.source)
    geometry = rectified.stencil.geometry
    scale = diagonal(np.repeat(total.reshape(1), geometry.outputs), None, geometry.axes)
    return Term(value, scale, rectified.sizes)


def _keeps_size(total: Any, slope: Any) -> bool:
    """Whether LeakyRelu(x) cannot overflow, and hardly underflow, where x and b x do not."""
    size, steepness = np.abs(total), np.abs(slope)
    return bool(LEAST <= size <= MOST and steepness / size <= max(1.0, steepness))


def _number(term: Term) -> Any:
    """The number c of a term c * x; None if the term is not a single number times its source."""
    f = term.stencil
    if f.channel_index is not None or not f.geometry.is_diagonal:
        return None
    numbers = f.weight.reshape(-1)
    return numbers.astype(np.float64)[0] if bool(np.all(numbers == numbers[0])) else None
