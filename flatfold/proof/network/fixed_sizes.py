"""What layers of fixed size ask of the map in front of them, such as a Gemm behind a Flatten.

`solved_extents` computes from it the extents of the inputs at which such a layer fits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from flatfold.errors import BuildError, InputError
from flatfold.proof.network.inputs import draw_feeds, input_specs

MOST_LAYERS = 4  # that are looked at
MOST_SIDES = 8  # near the solution
SOLVED_FROM = (64, 128)  # extents at which the map in front of a layer is looked at
RATIOS = (2.0, 0.5, 4 / 3, 0.75, 4.0, 0.25)  # of height to width, where no square fits
ARITHMETIC = ("Add", "Sub", "Mul", "Div")

# What a layer asks for over what it gets, for the shape of the value that it reads.
Ratio = Callable[[Sequence[int]], float]


def solved_extents(
    model: ir.Model, axes: int, shapes_of: Callable[[Sequence[int]], Mapping[str, tuple[int, ...]]]
) -> Iterator[tuple[int, ...]]:
    """Extents for the `axes` open axes at which the first layer that does not fit would do.

    `shapes_of` returns the shapes of the inputs for such extents. The part of the graph in front of
    the layer is run at two sizes, and what it reads is taken to grow linearly on each axis.
    """
    for value, ratio in _fixed_layers(model) if axes else ():
        reads = [_shape_at(model, value, shapes_of((side,) * axes)) for side in SOLVED_FROM]
        ratios = [ratio(shape) for shape in reads if shape is not None and 0 not in shape]
        if len(ratios) < len(SOLVED_FROM) or 1.0 in ratios:
            continue
        sides = [(1 / number) ** (1 / axes) for number in ratios]  # 1 is what is asked for
        slope = (sides[1] - sides[0]) / (SOLVED_FROM[1] - SOLVED_FROM[0])
        if slope > 0:
            yield from _near(SOLVED_FROM[0] + (1 - sides[0]) / slope, axes)
            return


def _near(side: float, axes: int) -> Iterator[tuple[int, ...]]:
    """Extents near `side`: rounded to powers of two, then other ratios of height to width."""
    sides = {round(side / m) * m + step for m in (32, 16, 8, 4, 2, 1) for step in (0, m, -m)}
    for near in sorted((s for s in sides if s > 0), key=lambda s: (abs(s - side), s))[:MOST_SIDES]:
        yield (near,) * axes
    for ratio in RATIOS if axes == 2 else ():
        yield tuple(max(round(side * r / 16) * 16, 16) for r in (ratio**0.5, ratio**-0.5))


def _shape_at(
    model: ir.Model, value: ir.Value, shapes: Mapping[str, tuple[int, ...]]
) -> tuple[int, ...] | None:
    """The shape of `value` for inputs of these shapes; None where its part of the graph fails."""
    from flatfold.proof.network.arithmetic import open_session

    part = model.clone()
    copies = (v for node in part.graph for v in node.outputs if v.name == value.name)
    part.graph.outputs[:] = [next(copies)]
    RemoveUnusedNodesPass()(part)
    try:
        feeds = next(draw_feeds(input_specs(model), dict(shapes), seed=0))[1]
        kept = {v.name for v in part.graph.inputs}
        run = open_session(part, "a part of the graph")
        (output,) = run({name: array for name, array in feeds.items() if name in kept})
    except (BuildError, InputError, MemoryError):
        return None
    return output.shape


def _fixed_layers(model: ir.Model) -> list[tuple[ir.Value, Ratio]]:
    """The values that the first layers of fixed size read, with the ratios of those layers."""
    layers: list[tuple[ir.Value, Ratio]] = []
    for node in model.graph:
        asked = _asked(node)
        if asked is not None and asked[0].producer() is not None:
            layers.append(asked)
        if len(layers) == MOST_LAYERS:
            break
    return layers


def _asked(node: ir.Node) -> tuple[ir.Value, Ratio] | None:
    """The value whose size `node` fixes, and the ratio; None for a node that fixes none."""
    if len(node.inputs) < 2 or node.inputs[0] is None or node.inputs[1] is None:
        return None
    first, second = node.inputs[0], node.inputs[1]
    constants = [ir.convenience.get_const_tensor(value) for value in (first, second)]
    weight = constants[1]
    if node.op_type == "Reshape" and weight is not None:
        sizes = [int(size) for size in weight.numpy().reshape(-1)][1:]
        if sizes and min(sizes) > 0:
            return first, lambda shape: math.prod(sizes) / math.prod(shape[1:])
    elif node.op_type in ("Gemm", "MatMul") and weight is not None and len(weight.shape) > 1:
        turned = "transB" in node.attributes and node.attributes["transB"].as_int()
        rows = weight.numpy().shape[-1 if turned else -2]
        return first, lambda shape: rows / shape[-1]
    elif node.op_type in ARITHMETIC and sum(c is not None for c in constants) == 1:
        constant, value = (weight, first) if weight is not None else (constants[0], second)
        dims = constant.numpy().shape if constant is not None else ()
        if math.prod(dims) > 1:
            return value, lambda shape: _broadcast_ratio(dims, shape)
    return None


def _broadcast_ratio(dims: Sequence[int], shape: Sequence[int]) -> float:
    pairs = zip(dims[::-1], shape[::-1], strict=False)
    both = [(a, b) for a, b in pairs if a != 1 and b != 1]
    return math.prod(a for a, _ in both) / math.prod(b for _, b in both)
