"""What both sides of a cone are run on: sizes, dense data, and impulses that look at one weight.

Where no operator of a cone counts pixels, the smallest maps that hold every border are enough.
Random data everywhere finds what is wrong on the whole; an impulse in a map of zeros finds what is
wrong in one weight, which many other products would hide: there M is the size of that one product.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import onnx_ir as ir

from flatfold.proof.interpreter.convolution import Array
from flatfold.proof.interpreter.pair import attribute

INTERIOR = 3  # positions that see no border, on every axis
CELLS = 4  # impulses along an axis
WORK = 1 << 29  # products in all images of impulses together; beyond, not every weight is met
LOUD = 2.0**20  # an impulse beside which the constants of a norm are small

ANYWHERE = (
    "Add",
    "AveragePool",
    "BatchNormalization",
    "Clip",
    "Conv",
    "Div",
    "GlobalAveragePool",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "LeakyRelu",
    "MaxPool",
    "Mul",
    "Neg",
    "PRelu",
    "Relu",
    "Sigmoid",
    "Softplus",
    "Sub",
    "Sum",
    "Tanh",
)
ELEMENTWISE = ("Add", "Div", "Mul", "PRelu", "Sub", "Sum")

Shape = tuple[int, ...]
Sources = Sequence[ir.Value]


@dataclass(frozen=True)
class Reach:
    """How far an output sees along each axis, and how far apart two neighbouring outputs look."""

    span: Shape
    stride: Shape


def reach_of(nodes: Iterable[ir.Node], output: ir.Value, axes: int) -> Reach:
    """The longest way through `nodes`: r' = r + s * d * (k - 1), s' = s * stride."""
    known: dict[ir.Value | None, tuple[list[int], list[int]]] = {}
    for node in nodes:
        ways = [known[v] for v in node.inputs if v in known] or [([0] * axes, [1] * axes)]
        span = [max(way[0][i] for way in ways) for i in range(axes)]
        step = [max(way[1][i] for way in ways) for i in range(axes)]
        kernel = _kernel(node, axes)
        if kernel is not None:
            dilations = attribute(node, "dilations", [1] * axes)
            pads = attribute(node, "pads", [0] * 2 * axes)
            for i in range(axes):
                width = max(dilations[i] * (kernel[i] - 1), pads[i], pads[i + axes])
                span[i] += step[i] * width
            strides = attribute(node, "strides", [1] * axes)
            step = [s * t for s, t in zip(step, strides, strict=True)]
        known |= dict.fromkeys(node.outputs, (span, step))
    found_span, found_step = known.get(output, ([0] * axes, [1] * axes))
    return Reach(tuple(found_span), tuple(found_step))


def _kernel(node: ir.Node, axes: int) -> Shape | None:
    if node.op_type in ("AveragePool", "MaxPool"):
        return tuple(node.attributes["kernel_shape"].as_ints())
    weight = node.inputs[1] if node.op_type == "Conv" else None
    if weight is None or weight.shape is None:
        return None
    dims = tuple(dim for dim in weight.shape[2:] if isinstance(dim, int))
    return dims if len(dims) == axes else None


def farther(one: Reach, two: Reach) -> Reach:
    return Reach(
        tuple(map(max, zip(one.span, two.span, strict=True))),
        tuple(map(max, zip(one.stride, two.stride, strict=True))),
    )


def is_free(nodes: Iterable[ir.Node], axes: int) -> bool:
    """Whether `nodes` do the same at any batch and map size."""
    return all(node.op_type in ANYWHERE and not _is_map(node, axes) for node in nodes)


def _is_map(node: ir.Node, axes: int) -> bool:
    """Elementwise with a constant that has a value for each pixel."""
    if node.op_type not in ELEMENTWISE:
        return False
    constants = (v.const_value for v in node.inputs if v is not None)
    return any(c is not None and any(n != 1 for n in tuple(c.shape)[-axes:]) for c in constants)


def small_shapes(shapes: Mapping[ir.Value, Shape], reach: Reach) -> dict[ir.Value, Shape] | None:
    """One image of the smallest size with every border class; None where sources differ in size.

    A size keeps its residue modulo the stride. Maps of one pixel stay that.
    """
    sizes = {shape[2:] for shape in shapes.values()}
    wide = {size for size in sizes if any(n != 1 for n in size)}
    if len(wide) > 1 or len({len(shape) for shape in shapes.values()}) > 1:
        return None
    small = {size: tuple(map(_smaller, size, reach.span, reach.stride)) for size in wide}
    return {v: (1, shape[1], *small.get(shape[2:], shape[2:])) for v, shape in shapes.items()}


def _smaller(size: int, span: int, stride: int) -> int:
    least = 2 * span + INTERIOR * stride
    return min(size, least + (size - least) % stride)


def dense(shapes: Mapping[ir.Value, Shape], rng: np.random.Generator) -> dict[ir.Value, Array]:
    return {value: rng.standard_normal(shape) for value, shape in shapes.items()}


def roomy_shapes(shapes: Mapping[ir.Value, Shape], reach: Reach) -> dict[ir.Value, Shape]:
    """`shapes` of maps that hold CELLS impulses on every axis, none of which sees the border."""
    return {
        v: shape
        if all(n == 1 for n in shape[2:])
        else (1, shape[1], *map(_roomy, shape[2:], reach.span, reach.stride))
        for v, shape in shapes.items()
    }


def _roomy(size: int, span: int, stride: int) -> int:
    least = 2 * span + stride - 1 + CELLS * _spacing(span, stride)
    return least + (size - least) % stride


def _spacing(span: int, stride: int) -> int:
    """Between impulses that no output sees two of, and that stand the same way to the stride."""
    return -(-(span + stride) // stride) * stride


def sparse(
    shapes: Mapping[ir.Value, Shape], reach: Reach, weights: int, rng: np.random.Generator
) -> dict[ir.Value, Array]:
    """Images of zeros but for impulses of one channel each, apart from one another.

    Every channel has its turn in each phase of the stride, so that every weight is met alone;
    as far as the work allows, for a region of `weights` weights.
    """
    phases = list(product(*map(range, reach.stride)))
    grids = {v: _grid(shape[2:], reach) for v, shape in shapes.items()}
    wanted = max((-(-shape[1] // len(grids[v])) for v, shape in shapes.items()), default=0)
    pixels = max((math.prod(shape[2:]) for shape in shapes.values()), default=1)
    count = min(wanted * len(phases), max(1, WORK // (pixels * max(weights, 1))))
    found = {}
    for value, shape in shapes.items():
        x = np.zeros((count, *shape[1:]))
        turns = np.resize(rng.permutation(shape[1]), (wanted, len(grids[value])))
        for image, (row, phase) in zip(x, product(turns, phases), strict=False):
            for channel, corner in zip(row, grids[value], strict=True):
                ends = zip(corner, phase, shape[2:], strict=True)
                at: Any = (channel, *(min(i + j, n - 1) for i, j, n in ends))
                image[at] = LOUD * rng.choice([-1, 1]) * rng.uniform(0.5, 2)
        found[value] = x
    return found


def _grid(sizes: Sequence[int], reach: Reach) -> list[Shape]:
    """Where impulses go in phase 0: far from the border where there is room."""
    axes = []
    for n, span, stride in zip(sizes, reach.span, reach.stride, strict=True):
        places = list(range(span, n - span - stride + 1, _spacing(span, stride)))
        axes.append(places or [min(span, max(0, n - stride))])
    return list(product(*axes))
