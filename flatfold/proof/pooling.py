"""Pools of the ONNX reference evaluator, whose own go from pixel to pixel."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from flatfold.proof.convolution import same_pads, windows


def pools(refused: type[Exception]) -> list[Any]:
    """AveragePool and MaxPool for the evaluator; they raise `refused` for what they do not know."""
    from onnx.reference.op_run import OpRun

    class AveragePool(OpRun):
        def _run(self, x: Any, count_include_pad: Any = None, **how: Any) -> tuple[Any]:
            settings = _settings(x, how, refused)
            total = sum(windows(x, *settings, fill=0.0))
            inside = np.ones((1, 1, *x.shape[2:]))
            counts = sum(windows(inside, *settings, fill=1.0 if count_include_pad else 0.0))
            with np.errstate(invalid="ignore"):
                return (total / counts,)

    class MaxPool(OpRun):
        def _run(self, x: Any, storage_order: Any = None, **how: Any) -> tuple[Any]:
            if len(self.onnx_node.output) > 1 or x.dtype.kind != "f":
                raise refused("MaxPool of whole numbers, or with indices")
            views = windows(x, *_settings(x, how, refused), fill=-np.inf)
            return (functools.reduce(np.maximum, views),)

    return [AveragePool, MaxPool]


def _settings(
    x: Any, how: dict[str, Any], refused: type[Exception]
) -> tuple[Any, Any, Any, list[int]]:
    """Kernel, strides, dilations and pads as numbers."""
    kernel, one = how["kernel_shape"], [1] * (x.ndim - 2)
    strides, dilations = how.get("strides") or one, how.get("dilations") or one
    pads, mode = how.get("pads") or [0] * 2 * len(one), how.get("auto_pad") or "NOTSET"
    if mode.startswith("SAME"):
        pads = same_pads(x.shape[2:], kernel, strides, dilations, mode)
    ends = zip(x.shape[2:], kernel, strides, dilations, pads, pads[len(one) :], strict=False)
    rest = [(n + b + e - d * (k - 1) - 1) % s for n, k, s, d, b, e in ends]
    if how.get("ceil_mode") and any(rest):
        raise refused("a pool whose last window hangs over the edge")
    return kernel, strides, dilations, list(pads)
