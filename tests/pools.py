"""Pools for the ONNX reference evaluator, whose own loop over pixels and fail on some 3-D maps.

The definition: take every window of the padded input; the mean counts the pixels that the padding
made only with count_include_pad, and those behind it, which ceil_mode reaches, never.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from onnx.reference.op_run import OpRun


def _pads(x, kernel, strides, dilations, pads, auto_pad) -> list[int]:
    axes = len(kernel)
    if auto_pad in (None, "NOTSET"):
        return list(pads or [0] * 2 * axes)
    if auto_pad == "VALID":
        return [0] * 2 * axes
    spans = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
    ends = zip(x.shape[2:], spans, strides, strict=True)
    total = [max((-(-n // s) - 1) * s + span - n, 0) for n, span, s in ends]
    less, more = [n // 2 for n in total], [n - n // 2 for n in total]
    return less + more if auto_pad == "SAME_UPPER" else more + less


def _hanging(x, kernel, strides, dilations, pads) -> list[int]:
    """Pixels behind the padding that the last window reaches; it must start before them."""
    axes, reached = len(kernel), []
    for i, n in enumerate(x.shape[2:]):
        span = dilations[i] * (kernel[i] - 1) + 1
        count = -((span - n - pads[i] - pads[axes + i]) // strides[i]) + 1
        count -= (count - 1) * strides[i] >= n + pads[i]
        reached.append(max((count - 1) * strides[i] + span - n - pads[i] - pads[axes + i], 0))
    return reached


def _padded(x, pads, fill) -> np.ndarray:
    axes = len(pads) // 2
    ends = zip(pads[:axes], pads[axes:], strict=True)
    return np.pad(x, [(0, 0), (0, 0), *ends], constant_values=fill)


def _windows(x, kernel, strides, dilations) -> np.ndarray:
    """[N, C, *positions, *kernel]."""
    axes = tuple(range(2, x.ndim))
    spans = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
    windows = sliding_window_view(x, spans, axis=axes)
    steps = (*(slice(None, None, s) for s in strides), *(slice(None, None, d) for d in dilations))
    return windows[(slice(None), slice(None), *steps)]


class _Pool(OpRun):
    """What both pools read from their attributes."""

    def views(self, x, fills, kernel_shape, **how) -> list[np.ndarray]:
        """Windows over x and over what the mean counts, or over x alone."""
        ones = [1] * len(kernel_shape)
        strides, dilations = how.get("strides") or ones, how.get("dilations") or ones
        slide = (kernel_shape, strides, dilations)
        pads = _pads(x, *slide, how.get("pads"), how.get("auto_pad"))
        behind = _hanging(x, *slide, pads) if how.get("ceil_mode") else [0] * len(ones)
        views = []
        for array, fill in zip((x, np.ones_like(x)), fills, strict=False):
            wide = _padded(_padded(array, pads, fill), [0] * len(ones) + behind, fills[0])
            views.append(_windows(wide, *slide).reshape(*_positions(wide, *slide), -1))
        return views


def _positions(x, kernel, strides, dilations) -> tuple[int, ...]:
    return _windows(x, kernel, strides, dilations).shape[: x.ndim]


class AveragePool(_Pool):
    def _run(self, x, count_include_pad=None, kernel_shape=None, **how):
        fills = (0.0, float(count_include_pad or 0))
        values, counted = self.views(x, fills, kernel_shape, **how)
        return ((values.sum(-1) / counted.sum(-1)).astype(x.dtype),)


class MaxPool(_Pool):
    def _run(self, x, kernel_shape=None, storage_order=None, **how):
        (values,) = self.views(x, (-np.inf,), kernel_shape, **how)
        return (values.max(-1).astype(x.dtype),)
