"""Layers as stencils: convolutions and matrix products by a constant."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from flatfold.passes.decline import Decline
from flatfold.passes.reading.meaning import Applied
from flatfold.passes.reading.node import (
    constant,
    dims_of,
    ints,
    number,
    optional_weights,
    rank,
    require_finite,
    source,
    spatial_sizes,
    text,
    weights,
    window,
)
from flatfold.passes.stencil.geometry import Ints
from flatfold.passes.stencil.kernels import Weight, transposed
from flatfold.passes.stencil.stencil import convolution, diagonal


def read_conv(node: ir.Node) -> Applied:
    weight = weights(node, 1, "weight")
    groups = groups_of(node, weight.shape[0])
    strides, dilations, begin, end = window(node, weight.shape[2:])
    bias = bias_of(node, len(weight))
    form = convolution(
        weight, bias, groups=groups, strides=strides, dilations=dilations, begin=begin, end=end
    )
    return Applied(source(node), form)


def bias_of(node: ir.Node, outputs: int) -> Weight | None:
    bias = optional_weights(node, 2, "bias")
    if bias is not None and bias.shape != (outputs,):
        raise Decline("ATTRIBUTE", f"a bias of shape {bias.shape} for {outputs} output channels")
    return bias


def groups_of(node: ir.Node, rows: int) -> int:
    groups = int(number(node, "group", 1))
    if groups < 1 or rows % groups:
        raise Decline("ATTRIBUTE", f"{rows} rows of weights do not make {groups} groups")
    return groups


def read_conv_transpose(node: ir.Node) -> Applied:
    """The same taps read backwards over an input that is spread out by the stride."""
    weight = weights(node, 1, "weight")
    kernel, groups = weight.shape[2:], groups_of(node, weight.shape[0])
    strides, dilations, begin, end = transposed_window(node, kernel)
    extra = ints(node, "output_padding", (0,) * len(kernel))
    reach = tuple(d * (k - 1) for d, k in zip(dilations, kernel, strict=True))
    form = convolution(
        transposed(weight, groups),
        bias_of(node, weight.shape[1] * groups),
        groups=groups,
        dilations=dilations,
        begin=tuple(r - b for r, b in zip(reach, begin, strict=True)),
        end=tuple(r - e + x for r, e, x in zip(reach, end, extra, strict=True)),
        upsample=strides,
    )
    return Applied(source(node), form)


def transposed_window(node: ir.Node, kernel: Ints) -> tuple[Ints, Ints, Ints, Ints]:
    """(strides, dilations, begin, end) of a ConvTranspose, whose padding a wanted size may tell.

    An axis of n pixels becomes s (n - 1) + d (k - 1) + 1 + output_padding pixels long. What that
    exceeds `output_shape` by, or s n for auto_pad SAME, is cut off, half of it at each end.
    """
    mode = text(node, "auto_pad", "NOTSET")
    wanted = ints(node, "output_shape", ())
    if not wanted and not mode.startswith("SAME"):
        return window(node, kernel)
    strides, dilations, _, _ = window(node, kernel, padded=False)
    extra = ints(node, "output_padding", (0,) * len(kernel))
    if len(extra) != len(kernel) or 0 < len(wanted) < len(kernel):
        sizes = f"output_padding {extra} and output_shape {wanted}"
        raise Decline("ATTRIBUTE", f"{sizes} do not fit a kernel {kernel}")
    excess = [d * (k - 1) + 1 + x for d, k, x in zip(dilations, kernel, extra, strict=True)]
    if wanted:
        before = [size for size in spatial_sizes(source(node)) if size is not None]
        if len(before) != len(kernel):
            raise Decline("AUTO-PAD", f"output_shape {wanted} pads by the unknown input size")
        axes = zip(before, strides, wanted[-len(kernel) :], strict=True)
        most = [s * (n - 1) - size for n, s, size in axes]
    else:
        most = [-s for s in strides]
    total = [x + n for x, n in zip(excess, most, strict=True)]
    if min(total, default=0) < 0:
        raise Decline(
            "AUTO-PAD", f"the wanted output size, {wanted or mode}, exceeds what there is"
        )
    less, more = tuple(n // 2 for n in total), tuple(n - n // 2 for n in total)
    return strides, dilations, *((less, more) if mode == "SAME_UPPER" else (more, less))


def read_gemm(node: ir.Node) -> Applied:
    """alpha * x W + beta * c, W read through transB."""
    if number(node, "transA", 0) != 0:
        raise Decline("TRANSPOSED", f"transA is 1: the data operand {source(node).name} is turned")
    weight = weights(node, 1, "weight")
    matrix = weight if number(node, "transB", 0) else weight.T
    alpha, beta = number(node, "alpha", 1.0), number(node, "beta", 1.0)
    offset = optional_weights(node, 2, "bias")
    bias = None
    if offset is not None:
        if offset.ndim == 2 and offset.shape[0] != 1:
            raise Decline("NOT-PER-CHANNEL", f"the bias has {offset.shape[0]} rows, one an image")
        bias = beta * np.broadcast_to(offset.reshape(-1).astype(np.float64), (len(matrix),))
    require_finite(np.array([alpha, beta]), "alpha or beta of the Gemm")
    scaled = matrix if alpha == 1 else alpha * matrix.astype(np.float64)
    return Applied(source(node), convolution(scaled, bias))


def read_matmul(node: ir.Node) -> Applied:
    """x W along the last axis of x, whatever its rank."""
    if constant(node.inputs[1]) is None and constant(node.inputs[0]) is not None:
        left, right = source(node, 0).name, source(node, 1).name
        raise Decline("MATMUL", f"the constant {left} is the left factor: it mixes rows of {right}")
    data, weight = source(node), weights(node, 1, "weight")
    if weight.ndim != 2:
        raise Decline("MATMUL", f"a product by a constant of shape {weight.shape} is not a matrix")
    rank(data)
    return Applied(data, convolution(weight.T))


def read_einsum(node: ir.Node) -> Applied:
    """A sum over the channels, axis 1 or the last one, with a constant matrix or scale.

    "nchw,oc->nohw" is a pointwise convolution, "blc,cd->bld" a product with a matrix.
    """
    left, right, output = _terms(text(node, "equation", ""), len(node.inputs))
    weight_first = constant(node.inputs[0]) is not None
    data = source(node, int(weight_first))
    letters, by = (right, left) if weight_first else (left, right)
    weight = weights(node, int(not weight_first), "operand of the Einsum")
    axes = rank(data) - 2
    unlike = [at for at, pair in enumerate(zip(letters, output, strict=False)) if len({*pair}) > 1]
    if len(letters) != rank(data) or len(output) != len(letters) or len(by) != weight.ndim:
        raise Decline("NONLINEAR", "the sum is not over the channels alone")
    at = unlike[0] if unlike else letters.find(by)
    if len(unlike) > 1 or at not in (1, axes + 1) or {*by} != {letters[at], output[at]}:
        raise Decline("NONLINEAR", "the sum is not over the channels alone")
    matrix = weight if by[0] == output[at] else weight.T
    spatial = (1,) * axes if at == 1 and axes else ()
    read, known = matrix.shape[-1], dims_of(data)[at]
    if known != read and (known is not None or read == 1):
        raise Decline("BROADCAST", f"the constant has {read} for the {known or 'unknown'} channels")
    if weight.ndim == 1:
        return Applied(data, diagonal(weight.astype(np.float64), None, len(spatial)))
    return Applied(data, convolution(matrix.reshape(*matrix.shape, *spatial)))


def _terms(equation: str, operands: int) -> tuple[str, str, str]:
    """The letters of two operands and of the result, each letter once in each. Raises Decline."""
    inputs, arrow, output = equation.replace(" ", "").partition("->")
    terms = [*inputs.split(","), output]
    once = all(term.isalpha() and len({*term}) == len(term) for term in terms)
    if not arrow or operands != 2 or len(terms) != 3 or not once:
        raise Decline("NONLINEAR", "only a sum of two operands by single letters is looked into")
    return terms[0], terms[1], terms[2]


LAYERS: dict[str, Callable[[ir.Node], Applied]] = {
    "Conv": read_conv,
    "ConvTranspose": read_conv_transpose,
    "Gemm": read_gemm,
    "MatMul": read_matmul,
}
