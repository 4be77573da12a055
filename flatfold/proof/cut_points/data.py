"""Data for the check of a cone: map sizes, dense random inputs, and impulses.

Where every operator of a cone computes the same at any size, the smallest maps that have every kind
of border are enough. Dense random data shows errors of the whole. An impulse in a map of zeros
shows an error of one weight, which many other products would hide: there M is the size of that one
product.
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
from flatfold.proof.interpreter.operators import traits_of
from flatfold.proof.interpreter.pair import Unsupported, attribute

INTERIOR = 3  # positions that see no border, on every axis
CELLS = 4  # impulses along an axis
WORK = 1 << 29  # products in all images of impulses, above which an impulse is in several channels

# The most channels of one impulse. Numbers in it are between 1 and 2, so an error of 1e-5 of the
# largest weight, 168 u, exceeds the 5.05 u M of a sum of so many whatever the weights are; where
# weights are sums of n products of either sign, M is about sqrt(n) of the largest over PEAK.
TOGETHER, PEAK = 16, 8

MOST_ELEMENTS = 1 << 28  # of the impulses of one channel: 2 GiB

LOUD = 2.0**20  # the size of an impulse, next to which the constants of a norm are small

Shape = tuple[int, ...]
Sources = Sequence[ir.Value]


@dataclass(frozen=True)
class Reach:
    """Along each axis, the receptive field of an output minus 1, and the stride between outputs."""

    span: Shape
    stride: Shape


def reach_of(nodes: Iterable[ir.Node], output: ir.Value, axes: int) -> Reach:
    """The largest over all paths through `nodes`: r' = r + s * d * (k - 1), s' = s * stride."""
    known: dict[ir.Value | None, tuple[list[int], list[int]]] = {}
    for node in nodes:
        reads = [known[v] for v in node.inputs if v in known] or [([0] * axes, [1] * axes)]
        span = [max(read[0][i] for read in reads) for i in range(axes)]
        step = [max(read[1][i] for read in reads) for i in range(axes)]
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
    last_span, last_step = known.get(output, ([0] * axes, [1] * axes))
    return Reach(tuple(last_span), tuple(last_step))


def _kernel(node: ir.Node, axes: int) -> Shape | None:
    if node.op_type in ("AveragePool", "MaxPool"):
        return tuple(node.attributes["kernel_shape"].as_ints())
    weight = node.inputs[1] if node.op_type == "Conv" else None
    if weight is None or weight.shape is None:
        return None
    dims = tuple(dim for dim in weight.shape[2:] if isinstance(dim, int))
    return dims if len(dims) == axes else None


def larger_reach(one: Reach, two: Reach) -> Reach:
    """The larger span and stride of the two on each axis."""
    return Reach(
        tuple(map(max, zip(one.span, two.span, strict=True))),
        tuple(map(max, zip(one.stride, two.stride, strict=True))),
    )


def is_any_size(nodes: Iterable[ir.Node], axes: int) -> bool:
    """Whether `nodes` compute the same at any batch and map size."""
    return all(traits_of(node).any_size and not _is_map(node, axes) for node in nodes)


def _is_map(node: ir.Node, axes: int) -> bool:
    """Whether `node` is elementwise with a constant that has a value for each pixel."""
    if not traits_of(node).elementwise:
        return False
    constants = (v.const_value for v in node.inputs if v is not None)
    return any(c is not None and any(n != 1 for n in tuple(c.shape)[-axes:]) for c in constants)


def channel_blocks(nodes: Iterable[ir.Node], shapes: Iterable[Shape]) -> int:
    """Into how many equal blocks the channels fall of which no output sees two.

    Those of a depthwise convolution are as many as its channels. The `nodes` compute the same at
    any size (`is_any_size`), and read sources of these `shapes`.
    """
    counts = {shape[1] for shape in shapes}
    if len(counts) != 1:
        return 1
    groups = (attribute(node, "group", 1) for node in nodes if node.op_type == "Conv")
    return math.gcd(*counts, *groups)


def small_shapes(shapes: Mapping[ir.Value, Shape], reach: Reach) -> dict[ir.Value, Shape] | None:
    """One image of the smallest size with every kind of border; None where sources differ in size.

    A size keeps its residue modulo the stride. Maps of one pixel keep their size.
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


def dense_inputs(
    shapes: Mapping[ir.Value, Shape], rng: np.random.Generator
) -> dict[ir.Value, Array]:
    """N(0, 1) at every pixel."""
    return {value: rng.standard_normal(shape) for value, shape in shapes.items()}


def impulse_shapes(
    shapes: Mapping[ir.Value, Shape], reach: Reach, blocks: int = 1
) -> dict[ir.Value, Shape]:
    """`shapes` of one image with room for the impulses of a block, all far from the border.

    At most CELLS of them on every axis.
    """

    def sizes(channels: int, shape: Shape) -> Iterable[int]:
        cells = next(n for n in range(1, CELLS + 1) if n == CELLS or n ** len(shape) >= channels)
        for size, span, stride in zip(shape, reach.span, reach.stride, strict=True):
            least = 2 * span + stride - 1 + cells * _spacing(span, stride)
            yield least + (size - least) % stride

    return {
        v: shape
        if all(n == 1 for n in shape[2:])
        else (1, shape[1], *sizes(shape[1] // blocks, shape[2:]))
        for v, shape in shapes.items()
    }


def _spacing(span: int, stride: int) -> int:
    """The distance between impulses: a multiple of the stride, so that no output sees two."""
    return -(-(span + stride) // stride) * stride


@dataclass(frozen=True)
class Weights:
    """How many weights a cone has, and of how many products one of them is the sum.

    blocks: of channels, see `channel_blocks`.
    """

    count: int
    products: int = 1
    blocks: int = 1

    @property
    def most_together(self) -> int:
        """The most channels of one impulse: an error of one weight is not hidden by the others."""
        return max(1, min(TOGETHER, int(TOGETHER * PEAK / math.sqrt(self.products))))


def impulse_inputs(
    shapes: Mapping[ir.Value, Shape], reach: Reach, weights: Weights, rng: np.random.Generator
) -> dict[ir.Value, Array]:
    """Images that are zero but for impulses, each far from the others that an output sees.

    Every channel has an impulse in each phase of the stride, so that every weight is multiplied
    with one impulse. It is in one channel of each block alone, unless that would exceed WORK: then
    in up to `most_together`. Raises Unsupported where the images are too many.
    """
    most = max((math.prod(shape) for shape in shapes.values()), default=1)
    if most * math.prod(reach.stride) > MOST_ELEMENTS:
        raise Unsupported(f"a stride of {reach.stride}, which asks for too many images")
    phases = list(product(*map(range, reach.stride)))
    grids = {v: _grid(shape[2:], reach) for v, shape in shapes.items()}
    within = {v: shape[1] // weights.blocks for v, shape in shapes.items()}
    alone = max((-(-count // len(grids[v])) for v, count in within.items()), default=0)
    pixels = max((math.prod(shape[2:]) for shape in shapes.values()), default=1)
    work = alone * len(phases) * pixels * max(weights.count, 1)
    together = min(weights.most_together, -(-work // WORK) or 1)
    rows = -(-alone // together)
    images = {}
    for value, shape in shapes.items():
        x = np.zeros((rows * len(phases), *shape[1:]))
        order = rng.permutation(within[value])
        chosen = np.resize(order, (rows, len(grids[value]), min(together, len(order)), 1))
        every_block = chosen + within[value] * np.arange(weights.blocks)
        channels = every_block.reshape(*chosen.shape[:2], -1)
        for image, (row, phase) in zip(x, product(channels, phases), strict=True):
            for group, corner in zip(row, grids[value], strict=True):
                ends = zip(corner, phase, shape[2:], strict=True)
                at: Any = (group, *(min(i + j, n - 1) for i, j, n in ends))
                image[at] = LOUD * _signed(rng, len(group))
        images[value] = x
    return images


def row_inputs(
    shapes: Mapping[ir.Value, Shape], rng: np.random.Generator
) -> dict[ir.Value, Array] | None:
    """The same for sources whose channels are the last axis: each row has one impulse.

    None where sources differ in shape. As many batches as every channel needs.
    """
    if len(set(shapes.values())) != 1:
        return None
    (shape,) = set(shapes.values())
    rows, channels = math.prod(shape[:-1]), shape[-1]
    count = max(1, -(-channels // max(rows, 1)))
    images = {}
    for value in shapes:
        x = np.zeros((count * rows, channels))
        order = np.resize(rng.permutation(channels), count * rows)
        x[np.arange(count * rows), order] = LOUD * _signed(rng, count * rows)
        images[value] = x.reshape(count, *shape)
    return images


def _signed(rng: np.random.Generator, count: int) -> Array:
    numbers: Array = rng.choice([-1, 1], count) * rng.uniform(1, 2, count)
    return numbers


def _grid(sizes: Sequence[int], reach: Reach) -> list[Shape]:
    """Positions of impulses in phase 0: far from the border where there is room."""
    axes = []
    for n, span, stride in zip(sizes, reach.span, reach.stride, strict=True):
        places = list(range(span, n - span - stride + 1, _spacing(span, stride)))
        axes.append(places or [min(span, max(0, n - stride))])
    return list(product(*axes))
