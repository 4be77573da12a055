"""What the operators that look between pixels do, sample by sample."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import onnx_ir as ir

from flatfold.proof.interpreter.convolution import Array
from flatfold.proof.interpreter.pair import Pair, Unsupported, given


def _sampled(x: Array, places: Array) -> Array:
    """x [..., sizes] at `places` [axes, *shape], linear between pixels, 0 outside."""
    axes = len(places)
    total = np.zeros((*x.shape[: x.ndim - axes], *places.shape[1:]), like=x)
    sizes = x.shape[x.ndim - axes :]
    low = np.floor(places).astype(np.int64)
    for corner in product((0, 1), repeat=axes):
        index = low + np.array(corner).reshape(-1, *(1,) * (places.ndim - 1))
        share = np.prod(1 - np.abs(places - index), axis=0)
        bounds = np.array(sizes).reshape(-1, *(1,) * (places.ndim - 1))
        inside = np.all((index >= 0) & (index < bounds), axis=0)
        kept = np.where(inside, index, 0)
        index_of: tuple[Any, ...] = (..., *kept)
        total += np.where(inside, share, 0.0) * x[index_of]
    return total


def grid_sample(x: Array, grid: Array, **how: Any) -> Array:
    """GridSample by the standard, outside zero."""
    mode, outside = how.get("mode", "linear"), how.get("padding_mode", "zeros")
    if outside != "zeros" or mode not in ("nearest", "linear", "bilinear"):
        raise Unsupported(f"GridSample by {mode} and {outside}")
    sizes = np.array(x.shape[2:], float).reshape(-1, *(1,) * (grid.ndim - 2))
    images = []
    for image in range(len(x)):
        at = np.moveaxis(grid[min(image, len(grid) - 1)], -1, 0)[::-1]
        corners = how.get("align_corners", 0)
        places = (at + 1) / 2 * (sizes - 1) if corners else ((at + 1) * sizes - 1) / 2
        images.append(_sampled(x[image], np.rint(places) if mode == "nearest" else places))
    return np.stack(images)


def deform_conv(x: Array, w: Array, offset: Array, mask: Array | None, **how: Any) -> Array:
    """DeformConv by the standard, without its bias."""
    axes, kernel, out = w.ndim - 2, w.shape[2:], offset.shape[2:]
    one, none = [1] * axes, [0] * 2 * axes
    strides, dilations, pads = (
        how.get("strides", one),
        how.get("dilations", one),
        how.get("pads", none),
    )
    groups, parts = how.get("group", 1), how.get("offset_group", 1)
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
            some = slice(part * each, (part + 1) * each)
            for tap, index in enumerate(product(*map(range, kernel))):
                step = (np.array(index) * dilations).reshape(-1, *(1,) * axes)
                value = _sampled(x[image, some], base + step + moves[part, tap])
                columns[some, tap] = value * gates[part, tap]
        stack = columns.reshape(groups, -1, int(np.prod(out)))
        images.append((w.reshape(groups, len(w) // groups, -1) @ stack).reshape(len(w), *out))
    return np.stack(images)


def _grid_sample(node: ir.Node, arguments: list[Pair | None]) -> Pair:
    x, grid = given(arguments[0]), given(arguments[1]).places
    how = {name: found.value for name, found in node.attributes.items()}
    return Pair(grid_sample(x.y, grid, **how), grid_sample(x.m, grid, **how))


def _deform_conv(node: ir.Node, arguments: list[Pair | None]) -> Pair:
    x, w, offset = (given(argument) for argument in arguments[:3])
    bias, mask = ([*arguments, None, None])[3:5]
    how = {name: found.value for name, found in node.attributes.items()}
    y = deform_conv(x.y, w.y, offset.places, None if mask is None else mask.y, **how)
    m = deform_conv(x.m, w.m, offset.places, None if mask is None else mask.m, **how)
    if bias is None:
        return Pair(y, m)
    column = (-1, *(1,) * (w.y.ndim - 2))
    return Pair(y + bias.y.reshape(column), m + bias.m.reshape(column))


SAMPLING: dict[str, Callable[[ir.Node, list[Pair | None]], Pair]] = {
    "DeformConv": _deform_conv,
    "GridSample": _grid_sample,
}
