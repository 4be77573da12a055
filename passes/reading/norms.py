"""Normalizations that a graph spells out.

    n(x) = (x - mean) / sqrt(mean((x - mean)^2) + eps) * scale + bias
    r(x) = x / sqrt(mean(x^2) + eps) * scale

With means along the last axis n is a LayerNormalization and r an RMSNormalization (Ba et al. 2016,
Zhang & Sennrich 2019); over all pixels n is an InstanceNormalization (Ulyanov et al. 2016). Also
n(x) = x * s + (bias - mean * s) with s = scale / sqrt(mean((x - mean)^2) + eps).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import onnx_ir as ir

from flatfold.passes.decline import Decline
from flatfold.passes.reading.composites import CLOSE, Composite, whole
from flatfold.passes.reading.node import constant, dims_of, ints, number, rank_of
from flatfold.passes.reading.products import Product, plus_number, product_of
from flatfold.passes.stencil.geometry import Ints


@dataclass(frozen=True)
class _Spelling:
    """What is read of a norm: the values in it, the axes of its means, and its nodes."""

    data: ir.Value
    centred: bool
    axes: Ints
    epsilon: float
    nodes: tuple[ir.Node, ...]
    scale: ir.Value | None = None
    bias: ir.Value | None = None
    factor: float = 1.0


def norm_at(node: ir.Node) -> Composite | None:
    """The norm that ends in `node`, if it is spelled out."""
    if node.domain != "" or node.op_type not in ("Add", "Div", "Mul", "Sub"):
        return None
    for spelling in _spellings(node):
        deviation = abs(spelling.factor - 1.0)
        nodes = whole(node, spelling.nodes, spelling.data) if deviation <= CLOSE else ()
        kind = _kind(spelling) if nodes else ""
        if kind:
            return Composite(
                kind,
                spelling.data,
                nodes,
                {"epsilon": spelling.epsilon},
                spelling.axes,
                spelling.scale,
                spelling.bias,
                deviation,
                _is_found(kind, spelling),
            )
    return None


def _is_found(kind: str, spelling: _Spelling) -> bool:
    """Whether engines have a kernel for it: along the last axis, with all parameters."""
    last = spelling.axes == ((rank_of(spelling.data) or 0) - 1,)
    if kind == "RMSNormalization":
        return last and spelling.scale is not None
    return last and spelling.scale is not None and spelling.bias is not None


def _kind(spelling: _Spelling) -> str:
    """The operator; none where its parameters vary along another axis than that of the operator."""
    rank, axes = rank_of(spelling.data) or 0, spelling.axes
    if spelling.bias is not None and not spelling.centred:
        return ""  # an RMSNormalization adds nothing
    if axes == (rank - 1,) and _varies_along(spelling, rank - 1):
        return "LayerNormalization" if spelling.centred else "RMSNormalization"
    if not spelling.centred or rank < 3:
        return ""
    if axes == tuple(range(2, rank)) and _varies_along(spelling, 1):
        return "InstanceNormalization"
    return "LayerNormalization" if axes == (1,) and _varies_along(spelling, 1) else ""


def _varies_along(spelling: _Spelling, axis: int) -> bool:
    """Whether scale and bias, if there are any, are one number for each place along an axis."""
    try:
        sizes = dims_of(spelling.data)
    except Decline:
        return False
    for value in (spelling.scale, spelling.bias):
        array = constant(value)
        shape = () if array is None else (1,) * (len(sizes) - array.ndim) + array.shape
        wanted = tuple(sizes[axis] if i == axis else 1 for i in range(len(shape)))
        if array is not None and shape != wanted:
            return False
    return isinstance(sizes[axis], int)


def _spellings(node: ir.Node) -> Iterator[_Spelling]:
    if node.op_type in ("Add", "Sub"):
        yield from _by_one_product(node)
    for bias in (0, 1) if node.op_type == "Add" else ():
        value, other = node.inputs[bias], node.inputs[1 - bias]
        if constant(value) is not None and other is not None and constant(other) is None:
            spelling = _scaled(other)
            if spelling is not None:
                yield replace(spelling, bias=value, nodes=(node, *spelling.nodes))
    if node.op_type in ("Div", "Mul"):
        spelling = _scaled(node.outputs[0])
        if spelling is not None:
            yield spelling


def _scaled(value: ir.Value) -> _Spelling | None:
    """The product of what is normalized, a scale, and 1 / sqrt(mean square + eps)."""
    product = product_of(value)
    data = [v for v, power in product.powers.items() if power == 1 and constant(v) is None]
    if len(data) != 1:
        return None
    inverse = _inverse(product, {data[0]: 1.0})
    return inverse and _norm_of(data[0], *inverse)


Inverse = tuple[Product, ir.Value, ir.Value | None]  # the product; what the root is of; the scale


def _inverse(product: Product, others: dict[ir.Value, float]) -> Inverse | None:
    """scale / sqrt(spread), beside `others`, as a product of nothing more."""
    rest = {v: power for v, power in product.powers.items() if v not in others}
    roots = [v for v, power in rest.items() if power == -0.5]
    scales = [v for v, power in rest.items() if power == 1 and constant(v) is not None]
    if len(roots) != 1 or len(scales) + 1 != len(rest) or len(scales) > 1:
        return None
    return product, roots[0], scales[0] if scales else None


def _norm_of(
    value: ir.Value, product: Product, spread: ir.Value, scale: ir.Value | None
) -> _Spelling | None:
    """The norm of `value` by the root of `spread`, its mean square plus epsilon."""
    raised = plus_number(spread)
    squares = _mean_of(raised[0]) if raised is not None else None
    if raised is None or squares is None:
        return None
    square = product_of(squares[0], stop=(value,))
    if not square.is_power_of(value, 2.0) or square.number != 1:
        return None
    nodes = (*product.nodes, raised[2], squares[2], *square.nodes)
    data, axes = value, squares[1]
    centre = _centre(value)
    if centre is not None and centre[1] == axes:
        data, nodes = centre[0], (*nodes, *centre[2])
    centred = data is not value
    return _Spelling(data, centred, axes, raised[1], nodes, scale, factor=product.number)


def _centre(value: ir.Value) -> tuple[ir.Value, Ints, tuple[ir.Node, ...]] | None:
    """x, the axes of its mean, and both nodes, where `value` is x - mean."""
    node = value.producer()
    if node is None or (node.op_type, node.domain) != ("Sub", ""):
        return None
    mean = _mean_of(node.inputs[1])
    if mean is None or mean[0] is not node.inputs[0]:
        return None
    return mean[0], mean[1], (node, mean[2])


def _by_one_product(node: ir.Node) -> Iterator[_Spelling]:
    """x * s + (bias - mean * s)."""
    first, second = node.inputs
    if node.op_type != "Add" or first is None or second is None:
        return
    for plain, rest in ((first, second), (second, first)):
        taken = rest.producer()
        if taken is None or (taken.op_type, taken.domain) != ("Sub", ""):
            continue
        bias, shift = taken.inputs
        if bias is None or shift is None or constant(bias) is None:
            continue
        spelling = _of_two_products(product_of(plain), product_of(shift))
        if spelling is not None:
            nodes = tuple(dict.fromkeys((node, taken, *spelling.nodes)))
            yield replace(spelling, bias=bias, nodes=nodes)


def _of_two_products(data: Product, mean: Product) -> _Spelling | None:
    """The norm of x by x * s and mean * s."""
    common = set(data.powers) & set(mean.powers)
    if len(common) != 1 or len(data.powers) != 2 or len(mean.powers) != 2:
        return None
    factor = common.pop()
    (x,), (centre,) = (set(p.powers) - {factor} for p in (data, mean))
    taken = _mean_of(centre)
    if {*data.powers.values(), *mean.powers.values()} != {1.0} or mean.number != 1:
        return None
    inverse = _inverse(product_of(factor), {})
    if taken is None or taken[0] is not x or inverse is None or data.number != 1:
        return None
    raised = plus_number(inverse[1])
    squares = _mean_of(raised[0]) if raised is not None else None
    square = product_of(squares[0]) if squares is not None else None
    if square is None or len(square.powers) != 1:
        return None
    spelling = _norm_of(next(iter(square.powers)), *inverse)
    if spelling is None or spelling.data is not x or spelling.axes != taken[1]:
        return None
    return replace(spelling, nodes=(*data.nodes, *mean.nodes, taken[2], *spelling.nodes))


def _mean_of(value: ir.Value | None) -> tuple[ir.Value, Ints, ir.Node] | None:
    """(x, axes, node) where `value` is the mean of x along axes that are kept, in order."""
    node = value.producer() if value is not None else None
    data = node.inputs[0] if node is not None and node.inputs else None
    if node is None or node.domain != "" or data is None or data.shape is None:
        return None
    rank = data.shape.rank()
    if node.op_type == "GlobalAveragePool":
        return data, tuple(range(2, rank)), node
    if node.op_type != "ReduceMean" or number(node, "keepdims", 1) != 1:
        return None
    axes = ints(node, "axes", ())
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        given = constant(node.inputs[1])
        axes = () if given is None else tuple(int(axis) for axis in given.reshape(-1))
    return (data, tuple(sorted(axis % rank for axis in axes)), node) if axes else None
