"""Write a matrix product and the bias behind it as a Gemm, where views make it two axes anyway."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from flatfold.passes.cost.model import Cost, CostModel
from flatfold.passes.decline import Decline
from flatfold.passes.lowering.draft import Draft
from flatfold.passes.lowering.replacement import Names, Replacement
from flatfold.passes.reading.affine import Affine
from flatfold.passes.reading.layout import make_term
from flatfold.passes.reading.node import (
    constant,
    data_and_constant,
    dims_of,
    number,
    only_producer,
    pixel_count,
    source,
    weights,
)
from flatfold.passes.rewrite import LocalRewrite, Proposal, Region
from flatfold.passes.stencil.stencil import diagonal


class FuseBiases(LocalRewrite):
    """view2(view1(x) W + b) = view2'(Gemm(view1'(x), W, b)), view1' to two axes.

    *Given* Reshape, MatMul by a constant, Add of a constant per column and Reshape. *Result* the
    same views around a Gemm, which adds the bias itself.

    *Declines when* a value between is read elsewhere, the bias varies along another axis, or the
    second view copies sizes that are not known.

    It comes last, as every other rewrite reads and writes products of any number of axes.
    """

    name = "fuse-biases"
    last = True

    def match(self, node: ir.Node, names: Names, cost: CostModel) -> Proposal:
        """The product and the bias in front of the Reshape `node`."""
        if node.op_type != "Reshape":
            raise Decline("NONLINEAR", "no view ends in it")
        add = _only(node.inputs[0], "Add")
        data, bias, _ = data_and_constant(add)
        product = _only(data, "MatMul")
        view = _only(product.inputs[0], "Reshape")
        weight = weights(product, 1, "weight")
        columns = weight.shape[-1]
        if weight.ndim != 2 or bias.shape[-1:] != (columns,) or bias.size != columns:
            raise Decline("NONLINEAR", "it is no product by a matrix with a bias for each column")
        if len(dims_of(source(product))) < 3 or len(bias.shape) > len(dims_of(data)):
            raise Decline("NONLINEAR", "it has no axes too many for a Gemm")
        inside = (node, add, product, view)
        pixels = pixel_count(dims_of(data)[1:-1])
        views = Cost(nodes=3, seconds=3 * cost.profile.node)
        before = views + cost.bias(columns, pixels)
        new = _written(inside, bias, _sizes_after(node), names)
        return Proposal(_region(inside), new, before, views)


def _only(value: ir.Value | None, op_type: str) -> ir.Node:
    """The node of this type that computes a value which nothing else reads."""
    node = only_producer(value, op_type)
    if node is None:
        raise Decline("NONLINEAR", f"no {op_type} that is read only here")
    return node


def _sizes_after(view: ir.Node) -> list[int]:
    """The sizes that a Reshape makes, none of which is one of its input's."""
    wanted = constant(view.inputs[1])
    if wanted is None:
        raise Decline("NONLINEAR", "the sizes that it makes are computed")
    before, sizes = dims_of(source(view)), [int(size) for size in wanted.reshape(-1)]
    if 0 in sizes and number(view, "allowzero", 0):
        raise Decline("NONLINEAR", "it makes a tensor without elements")
    for axis, size in enumerate(sizes):
        if size == 0 and axis < len(before):
            known = before[axis]
            sizes[axis] = known or (-1 if -1 not in sizes else 0)
    if 0 in sizes:
        raise Decline("NONLINEAR", "the view copies sizes that are not known")
    return sizes


def _region(inside: tuple[ir.Node, ...]) -> Region:
    data = source(inside[-1])
    channels = dims_of(data)[-1]
    if channels is None:
        raise Decline("NONLINEAR", "the last size of what is read is not known")
    term = make_term(data, diagonal(np.ones(channels), None, 0))
    return Region(inside[0], Affine((term,), None, 0), inside, {}, ())


def _written(
    inside: tuple[ir.Node, ...], bias: np.ndarray, sizes: Sequence[int], names: Names
) -> Replacement:
    node, add, product, view = inside
    draft = Draft(node.outputs[0], names)
    rows, columns = weights(product, 1, "weight").shape
    images = [size or 0 for size in dims_of(source(product))[:-1]]
    count = math.prod(images) or None
    flat = draft.integers([-1, rows], "rows")
    read = draft.op("Reshape", source(view), flat, shape=ir.Shape([count, rows]))
    given = next(v for v in add.inputs if v is not None and v is not product.outputs[0])
    shift = given if bias.ndim == 1 else draft.constant(bias.reshape(-1), "bias")
    whole = draft.op("Gemm", read, source(product, 1), shift, shape=ir.Shape([count, columns]))
    after = draft.integers(sizes, "sizes")
    return draft.replacement(draft.op("Reshape", whole, after, shape=node.outputs[0].shape))
