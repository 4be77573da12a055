"""Operators on maps: pools, padding, resizing, pixels moved between space and channels."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.fuzz.layers import spatial, window
from tests.fuzz.sketch import Rejected, Sketch


def pool(s: Sketch, x: str) -> str:
    """An average, maximum or Lp pool with any of its attributes."""
    _, _, sizes = spatial(s, x)
    kind = s.one(("AveragePool", "AveragePool", "MaxPool", "MaxPool", "LpPool"))
    attributes = window(s, sizes, 4)
    if (kind == "AveragePool" and s.opset < 19) or (kind == "LpPool" and s.opset < 18):
        attributes.pop("dilations", None)
    if kind == "MaxPool" and s.opset < 10:
        attributes.pop("dilations", None)
    if s.opset >= (18 if kind == "LpPool" else 10) and s.chance(0.2):
        attributes["ceil_mode"] = 1
    if kind == "AveragePool" and s.chance(0.4):
        attributes["count_include_pad"] = 1
    if kind == "LpPool":
        attributes["p"] = s.between(1, 2)
    return s.add(kind, x, **attributes)


def global_pool(s: Sketch, x: str) -> str:
    spatial(s, x)
    kinds = ("GlobalAveragePool", "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
    return s.add(s.one(kinds), x)


def pad(s: Sketch, x: str) -> str:
    """Any mode, any axis, now and then a crop."""
    shape = s.shape(x)
    rank = len(shape)
    if not rank:
        raise Rejected("scalar")
    mode = s.one(("constant", "constant", "constant", "reflect", "edge", "wrap"))
    if mode == "wrap" and s.opset < 19:
        raise Rejected("wrap")
    first = 0 if s.chance(0.15) else min(2, rank - 1)
    amounts = np.zeros((2, rank), np.int64)
    amounts[:, first:] = s.rng.integers(0, 3, size=(2, rank - first))
    if mode == "constant" and s.chance(0.15):
        amounts[:, first:] -= 1
    if mode in ("reflect", "wrap") and (amounts >= np.array(shape)).any():
        raise Rejected("wider than the map")
    fill = float(s.one((0.0, 0.0, 0.0, 1.0, -0.5)))
    if s.opset < 11:
        return s.add("Pad", x, mode=mode, pads=[int(n) for n in amounts.ravel()], value=fill)
    extra = [s.const(np.float32(fill))] if mode == "constant" and s.chance(0.6) else []
    if s.opset >= 18 and extra and s.chance(0.3):
        axes = s.permutation(rank)[: s.between(1, rank)]
        part = [int(n) for n in amounts[:, axes].ravel()]
        axes = [a - rank if s.chance(0.3) else a for a in axes]
        return s.add("Pad", x, s.ints(*part), *extra, s.ints(*axes), mode=mode)
    return s.add("Pad", x, s.ints(*(int(n) for n in amounts.ravel())), *extra, mode=mode)


def resize(s: Sketch, x: str) -> str:
    """Resize or Upsample by scales or to sizes."""
    shape = s.shape(x)
    if len(shape) != 4:
        raise Rejected("rank")
    factors = [s.one((2.0, 2.0, 1.0, 3.0, 0.5)) for _ in range(2)]
    mode = s.one(("nearest", "nearest", "linear"))
    scales = np.array([1, 1, *factors], np.float32)
    if s.opset < 10:
        if s.opset < 9:
            return s.add("Upsample", x, scales=[float(n) for n in scales], mode=mode)
        return s.add("Upsample", x, s.const(scales), mode=mode)
    if s.opset < 11:
        return s.add("Resize", x, s.const(scales), mode=mode)
    attributes: dict[str, Any] = {"mode": s.one((mode, mode, mode, "cubic"))}
    modes = ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel")
    attributes["coordinate_transformation_mode"] = s.one(modes)
    if attributes["mode"] == "nearest":
        choices = ("round_prefer_floor", "floor", "ceil", "round_prefer_ceil")
        attributes["nearest_mode"] = s.one(choices)
    roi = "" if s.opset >= 13 else s.const(np.zeros(0, np.float32))
    if s.chance(0.5):
        return s.add("Resize", x, roi, s.const(scales), **attributes)
    sizes = [*shape[:2], *(max(1, int(n * f)) for n, f in zip(shape[2:], factors, strict=True))]
    none = "" if s.opset >= 13 else s.const(np.zeros(0, np.float32))
    return s.add("Resize", x, roi, none, s.ints(*sizes), **attributes)


def depth_and_space(s: Sketch, x: str) -> str:
    shape = s.shape(x)
    if len(shape) != 4:
        raise Rejected("rank")
    if shape[1] % 4 == 0 and s.chance(0.6):
        mode = {"mode": s.one(("DCR", "CRD"))} if s.opset >= 11 else {}
        return s.add("DepthToSpace", x, blocksize=2, **mode)
    if shape[2] % 2 or shape[3] % 2:
        raise Rejected("odd")
    return s.add("SpaceToDepth", x, blocksize=2)


def sampled(s: Sketch, x: str) -> str:
    """GridSample with a constant grid: a shift of whole or broken pixels."""
    shape = s.shape(x)
    if len(shape) != 4 or s.opset < 16:
        raise Rejected("GridSample")
    n, _, h, w = shape
    rows, columns = np.meshgrid(np.linspace(-1, 1, h), np.linspace(-1, 1, w), indexing="ij")
    step = s.one((0.0, 2 / max(w - 1, 1), 0.13))
    grid = np.stack([columns + step, rows], -1).astype(np.float32)
    mode = s.one(("bilinear", "nearest")) if s.opset < 20 else s.one(("linear", "nearest"))
    how = {"padding_mode": s.one(("zeros", "border", "reflection")), "align_corners": 1}
    return s.add("GridSample", x, s.const(np.tile(grid, (n, 1, 1, 1))), mode=mode, **how)


MAPS = [pool, pool, global_pool, pad, pad, resize, depth_and_space, sampled]
