"""What the operators that look between pixels do, sample by sample."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import onnx_ir as ir

from flatfold.proof.convolution import Array
from flatfold.proof.pair import Pair, Unsupported, attribute, given


def _sampled(x: Array, places: Array) -> Array:
    """x [..., sizes] at `places` [axes, *shape], linear between pixels, 0 outside."""
    axes = len(places)
    total = np.zeros((*x.shape[: x.ndim - axes], *places.shape[1:]))
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


def _grid_sample(node: ir.Node, arguments: list[Pair | None]) -> Pair:
    x, grid = given(arguments[0]), given(arguments[1]).y
    mode, outside = attribute(node, "mode", "linear"), attribute(node, "padding_mode", "zeros")
    if outside != "zeros" or mode not in ("nearest", "linear", "bilinear"):
        raise Unsupported(f"GridSample by {mode} and {outside}")
    sizes = np.array(x.y.shape[2:], float).reshape(-1, *(1,) * (grid.ndim - 2))
    found: list[list[Array]] = [[], []]
    for image in range(len(x.y)):
        at = np.moveaxis(grid[min(image, len(grid) - 1)], -1, 0)[::-1]
        corners = attribute(node, "align_corners", 0)
        places = (at + 1) / 2 * (sizes - 1) if corners else ((at + 1) * sizes - 1) / 2
        places = np.rint(places) if mode == "nearest" else places
        for kept, array in zip(found, (x.y, x.m), strict=True):
            kept.append(_sampled(array[image], places))
    return Pair(np.stack(found[0]), np.stack(found[1]))


def _deform_conv(node: ir.Node, arguments: list[Pair | None]) -> Pair:
    x, w, offset = (given(argument) for argument in arguments[:3])
    axes, kernel = w.y.ndim - 2, w.y.shape[2:]
    one, none = [1] * axes, [0] * 2 * axes
    strides, dilations = (attribute(node, name, one) for name in ("strides", "dilations"))
    pads, groups = attribute(node, "pads", none), attribute(node, "group", 1)
    parts, mask = attribute(node, "offset_group", 1), (list(arguments) + [None] * 2)[4]
    out = offset.y.shape[2:]
    start = [s * np.arange(n) - p for s, n, p in zip(strides, out, pads[:axes], strict=True)]
    base = np.stack(np.meshgrid(*start, indexing="ij")).astype(float)
    images: Any = [[], []]
    for image in range(len(x.y)):
        moves = offset.y[min(image, len(offset.y) - 1)].reshape(parts, -1, axes, *out)
        gates = None if mask is None else mask.y[min(image, len(mask.y) - 1)]
        for kept, a, b in ((images[0], x.y, w.y), (images[1], x.m, w.m)):
            columns = []
            for channel in range(a.shape[1]):
                part = channel * parts // a.shape[1]
                for tap, index in enumerate(product(*map(range, kernel))):
                    step = (np.array(index) * dilations).reshape(-1, *(1,) * axes)
                    value = _sampled(a[image, channel], base + step + moves[part, tap])
                    gate = 1.0 if gates is None else gates.reshape(parts, -1, *out)[part, tap]
                    columns.append(value * (gate if b is w.y else np.abs(gate)))
            stack = np.stack(columns).reshape(groups, -1, int(np.prod(out)))
            blocks = b.reshape(groups, b.shape[0] // groups, -1)
            kept.append((blocks @ stack).reshape(b.shape[0], *out))
    y, m = np.stack(images[0]), np.stack(images[1])
    bias = arguments[3] if len(arguments) > 3 else None
    column = (-1, *(1,) * axes)
    if bias is None:
        return Pair(y, m)
    return Pair(y + bias.y.reshape(column), m + bias.m.reshape(column))


SAMPLING: dict[str, Callable[[ir.Node, list[Pair | None]], Pair]] = {
    "DeformConv": _deform_conv,
    "GridSample": _grid_sample,
}
