"""Operators that read between pixels: GridSample and DeformConv.

`grid_sample` and `deform_conv` compute arrays; the rules for the table `operators` are at the end.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from flatfold.proof.interpreter.convolution import Array
from flatfold.proof.interpreter.pair import Pair, Unsupported, given

Index = npt.NDArray[np.intp]


def _interpolate(x: Array, positions: Array) -> Array:
    """x [..., sizes] at `positions` [axes, *shape]: linear between pixels, 0 outside the map."""
    axes = len(positions)
    total = np.zeros((*x.shape[: x.ndim - axes], *positions.shape[1:]), like=x)
    sizes = x.shape[x.ndim - axes :]
    low = np.floor(positions).astype(np.int64)
    for corner in product((0, 1), repeat=axes):
        index = low + np.array(corner).reshape(-1, *(1,) * (positions.ndim - 1))
        share = np.prod(1 - np.abs(positions - index), axis=0)
        bounds = np.array(sizes).reshape(-1, *(1,) * (positions.ndim - 1))
        inside = np.all((index >= 0) & (index < bounds), axis=0)
        pixel: tuple[Any, ...] = (..., *np.where(inside, index, 0))
        total += np.where(inside, share, 0.0) * x[pixel]
    return total


def grid_sample(x: Array, grid: Array, **options: Any) -> Array:
    """GridSample by the standard, with zeros outside the map. Raises Unsupported."""
    mode, padding = options.get("mode", "linear"), options.get("padding_mode", "zeros")
    if padding != "zeros" or mode not in ("nearest", "linear", "bilinear"):
        raise Unsupported(f"GridSample with {mode} and {padding}")
    sizes = np.array(x.shape[2:], float).reshape(-1, *(1,) * (grid.ndim - 2))
    images = []
    for image in range(len(x)):
        at = np.moveaxis(grid[min(image, len(grid) - 1)], -1, 0)[::-1]
        corners = options.get("align_corners", 0)
        positions = (at + 1) / 2 * (sizes - 1) if corners else ((at + 1) * sizes - 1) / 2
        images.append(
            _interpolate(x[image], np.rint(positions) if mode == "nearest" else positions)
        )
    return np.stack(images)


def deform_conv(x: Array, w: Array, offset: Array, mask: Array | None, **options: Any) -> Array:
    """DeformConv by the standard, without its bias."""
    axes, kernel, out = w.ndim - 2, w.shape[2:], offset.shape[2:]
    one, none = [1] * axes, [0] * 2 * axes
    strides, dilations, pads = (
        options.get("strides", one),
        options.get("dilations", one),
        options.get("pads", none),
    )
    groups, parts = options.get("group", 1), options.get("offset_group", 1)
    start = [s * np.arange(n) - p for s, n, p in zip(strides, out, pads[:axes], strict=True)]
    base = np.stack(np.meshgrid(*start, indexing="ij")).astype(float)
    images, each = [], x.shape[1] // parts
    for image in range(len(x)):
        moves = offset[min(image, len(offset) - 1)].reshape(parts, -1, axes, *out)
        gates = np.ones((parts, moves.shape[1], *out), like=x)
        if mask is not None:
            gates = mask[min(image, len(mask) - 1)].reshape(gates.shape)
        columns = np.zeros((x.shape[1], len(moves[0]), *out), like=x)
        for part in range(parts):
            channels = slice(part * each, (part + 1) * each)
            for tap, index in enumerate(product(*map(range, kernel))):
                step = (np.array(index) * dilations).reshape(-1, *(1,) * axes)
                value = _interpolate(x[image, channels], base + step + moves[part, tap])
                columns[channels, tap] = value * gates[part, tap]
        stack = columns.reshape(groups, -1, int(np.prod(out)))
        images.append((w.reshape(groups, len(w) // groups, -1) @ stack).reshape(len(w), *out))
    return np.stack(images)


def evaluate_grid_sample(node: ir.Node, arguments: list[Pair | None]) -> Pair:
    x, grid = given(arguments[0]), given(arguments[1]).coordinates
    options = {name: value.value for name, value in node.attributes.items()}
    return Pair(grid_sample(x.y, grid, **options), grid_sample(x.m, grid, **options))


def evaluate_deform_conv(node: ir.Node, arguments: list[Pair | None]) -> Pair:
    x, w, offset = (given(argument) for argument in arguments[:3])
    bias, mask = ([*arguments, None, None])[3:5]
    options = {name: value.value for name, value in node.attributes.items()}
    y = deform_conv(x.y, w.y, offset.coordinates, None if mask is None else mask.y, **options)
    m = deform_conv(x.m, w.m, offset.coordinates, None if mask is None else mask.m, **options)
    if bias is None:
        return Pair(y, m)
    column = (-1, *(1,) * (w.y.ndim - 2))
    return Pair(y + bias.y.reshape(column), m + bias.m.reshape(column))


def evaluate_resize(node: ir.Node, arguments: list[Pair | None]) -> Pair:
    """Axis by axis: each position lies between two of the map, or on one of them.

    Which, ONNX's evaluator says: it resizes the rows of an identity matrix.
    """
    x, scales, sizes = given(arguments[0]), _numbers(node, 2), _numbers(node, 3)
    y, m = x.y, x.m
    for axis, size in enumerate(x.y.shape):
        scale = float(scales[axis]) if scales is not None and scales.size else None
        wanted = int(sizes[axis]) if sizes is not None else None
        if scale == 1 or wanted == size:
            continue
        matrix = _resized_identity(node, size, scale, wanted)
        low, high, share = _neighbours(matrix)
        shape = (-1, *(1,) * (y.ndim - 1 - axis))
        share = share.reshape(shape)
        first, second = (np.take(m, index, axis) for index in (low, high))
        m = first * (1 - share) + second * share
        first, second = (np.take(y, index, axis) for index in (low, high))
        y = first + share * (second - first) if np.any(share) else first
    return Pair(y, m)


def _numbers(node: ir.Node, index: int) -> npt.NDArray[Any] | None:
    """The scales or sizes: they say which pixels are read, and are no part of the algebra."""
    value = node.inputs[index] if len(node.inputs) > index else None
    if value is None:
        return None
    tensor = ir.convenience.get_const_tensor(value)
    if tensor is None:
        raise Unsupported("Resize by computed numbers")
    return tensor.numpy()


def _resized_identity(node: ir.Node, size: int, scale: float | None, wanted: int | None) -> Array:
    """One row for each position of an axis of this size: the shares of the pixels that it reads."""
    from onnx import helper
    from onnx.reference import ReferenceEvaluator

    chosen: dict[str, Any] = {name: a.value for name, a in node.attributes.items()}
    if not set(chosen) <= {"mode", "coordinate_transformation_mode", "nearest_mode"}:
        raise Unsupported(f"Resize with {', '.join(chosen)}")
    kind = ["scales", ""] if scale is not None else ["", "sizes"]
    inputs = [helper.make_tensor_value_info("x", 11, None)]
    inputs.append(helper.make_tensor_value_info("".join(kind), 1 if scale is not None else 7, None))
    output = helper.make_tensor_value_info("y", 11, None)
    made = helper.make_node("Resize", ["x", "", *kind], ["y"], **chosen)
    graph = helper.make_graph([made], "axis", inputs, [output])
    opset = [helper.make_opsetid("", 19)]
    run = ReferenceEvaluator(helper.make_model(graph, opset_imports=opset, ir_version=9))
    by = np.array([1, scale], np.float32) if scale is not None else np.array([size, wanted])
    (rows,) = run.run(None, {"x": np.eye(size), "".join(kind): by})
    resized: Array = np.asarray(rows, np.float64).T
    return resized


def _neighbours(matrix: Array) -> tuple[Index, Index, Array]:
    """(first pixel, second pixel, share of the second) of each row. Raises Unsupported."""
    if np.any(np.count_nonzero(matrix, axis=1) > 2) or not np.allclose(matrix.sum(1), 1):
        raise Unsupported("Resize by more than two pixels")
    low = np.argmax(matrix != 0, axis=1)
    high = matrix.shape[1] - 1 - np.argmax(matrix[:, ::-1] != 0, axis=1)
    share = np.where(high > low, np.take_along_axis(matrix, high[:, None], 1)[:, 0], 0.0)
    return low, high, share
