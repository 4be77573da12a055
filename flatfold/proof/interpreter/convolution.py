"""Convolutions and pools in float64, by their definition; the tests use them, too."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

# Above this many elements the columns of all taps are not stored together. FEW_COLUMNS are for
# floats: to write and read more of them, and more than the weights have, takes longer than a
# product for each tap.
MOST_COLUMNS, FEW_COLUMNS = 1 << 24, 1 << 18


def convolve(
    x: Array, weight: Array, strides: Any, dilations: Any, pads: Any, groups: int
) -> Array:
    """Cross-correlation by the definition: one matrix product, or one for each tap."""
    kernel = weight.shape[2:]
    axes, taps = len(kernel), int(np.prod(kernel))
    padded = np.pad(x, [(0, 0), (0, 0), *zip(pads[:axes], pads[axes:], strict=True)])
    spans = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
    out = [(n - a) // s + 1 for n, a, s in zip(padded.shape[2:], spans, strides, strict=True)]
    shape = (len(x), groups, len(weight) // groups, int(np.prod(out)))
    views = (_window(padded, tap, dilations, out, strides) for tap in np.ndindex(*kernel))
    matrix = weight.reshape(groups, shape[2], -1, taps)
    most = max(FEW_COLUMNS, weight.size) if isinstance(x, np.ndarray) else MOST_COLUMNS
    if x.shape[1] * taps * len(x) * shape[3] <= most:
        columns = np.stack([v.reshape(len(x), groups, -1, shape[3]) for v in views], axis=3)
        y = matrix.reshape(groups, shape[2], -1) @ columns.reshape(*shape[:2], -1, shape[3])
        return y.reshape(len(x), len(weight), *out)
    if matrix.shape[1:3] == (1, 1):
        return _depthwise(padded, weight, strides, dilations, out)
    y = np.zeros(shape, like=x)
    for number, view in enumerate(views):
        y += matrix[..., number] @ view.reshape(len(x), groups, -1, shape[3])
    return y.reshape(len(x), len(weight), *out)


def _depthwise(padded: Array, weight: Array, strides: Any, dilations: Any, out: Any) -> Array:
    """A row of taps at a time: matrices of 1 x 1 would cost a call for each channel and tap."""
    y = np.zeros((len(padded), len(weight), *out), like=padded)
    width, step, stride = weight.shape[-1], dilations[-1], strides[-1]
    for tap in np.ndindex(*weight.shape[2:-1]):
        whole = (dilations[:-1], out[:-1], strides[:-1])
        rows = _window(padded, tap, *whole)
        views = np.lib.stride_tricks.sliding_window_view(rows, step * (width - 1) + 1, axis=-1)
        index: Any = (slice(None), 0, *tap)
        y += np.einsum("nc...k,ck->nc...", views[..., ::stride, ::step], weight[index])
    return y


def _window(padded: Array, tap: Any, dilations: Any, out: Any, strides: Any) -> Array:
    """The pixels that one tap reads."""
    window: Any = [slice(None), slice(None)]
    for t, d, o, s in zip(tap, dilations, out, strides, strict=True):
        window.append(slice(t * d, t * d + (o - 1) * s + 1, s))
    view: Array = padded[tuple(window)]
    return view


def same_pads(sizes: Any, kernel: Any, strides: Any, dilations: Any, mode: str) -> list[int]:
    """Pads of auto_pad SAME_UPPER or SAME_LOWER: the output has ceil(size / stride) values."""
    begin, end = [], []
    for n, k, s, d in zip(sizes, kernel, strides, dilations, strict=True):
        total = max((-(-n // s) - 1) * s + d * (k - 1) + 1 - n, 0)
        begin.append(total // 2 if mode == "SAME_UPPER" else total - total // 2)
        end.append(total - begin[-1])
    return begin + end


def _scatter(x: Array, weight: Array, strides: Any, dilations: Any, groups: int) -> Array:
    """Transposed convolution without padding: y[s * p + d * k] += x[p] W[k]."""
    kernel, sizes = weight.shape[2:], x.shape[2:]
    each = zip(sizes, kernel, strides, dilations, strict=True)
    out = [(n - 1) * s + d * (k - 1) + 1 for n, k, s, d in each]
    columns = x.reshape(len(x), groups, -1, int(np.prod(sizes)))
    y = np.zeros((len(x), weight.shape[1] * groups, *out), like=x)
    for tap in np.ndindex(*kernel):
        index: Any = (..., *tap)
        matrix = weight[index].reshape(groups, -1, weight.shape[1]).swapaxes(1, 2)
        view = _window(y, tap, dilations, sizes, strides)
        view += (matrix @ columns).reshape(len(x), -1, *sizes)
    return y


def transpose_convolve(x: Array, weight: Array, options: Mapping[str, Any]) -> Array | None:
    """ConvTranspose by its attributes, without bias.

    None where it has fewer values than `output_shape` or auto_pad asks for: ONNX Runtime and the
    standard differ there.
    """
    none, one = [0] * (x.ndim - 2), [1] * (x.ndim - 2)
    strides, dilations = options.get("strides") or one, options.get("dilations") or one
    pads, extra = options.get("pads") or none * 2, options.get("output_padding") or none
    mode, wanted = options.get("auto_pad") or "NOTSET", options.get("output_shape")
    y = _scatter(x, weight, strides, dilations, options.get("group") or 1)
    y = np.pad(y, [(0, 0), (0, 0), *((0, more) for more in extra)])
    if mode.startswith("SAME") and not wanted:
        wanted = [n * s for n, s in zip(x.shape[2:], strides, strict=True)]
    if wanted:
        excess = [n - size for n, size in zip(y.shape[2:], wanted[-len(one) :], strict=True)]
        if min(excess, default=0) < 0:
            return None
        less, more = [n // 2 for n in excess], [n - n // 2 for n in excess]
        pads = less + more if mode == "SAME_UPPER" else more + less
    elif mode == "VALID":
        pads = none * 2
    return _crop(y, pads)


def _crop(y: Array, pads: Any) -> Array:
    """What is left of `y` without `pads` pixels at its ends."""
    axes = y.ndim - 2
    window: Any = [slice(None), slice(None)]
    for n, begin, end in zip(y.shape[2:], pads[:axes], pads[axes:], strict=True):
        window.append(slice(begin, n - end))
    inner: Array = y[tuple(window)]
    return inner


def windows(
    x: Array, kernel: Any, strides: Any, dilations: Any, pads: Any, fill: float
) -> list[Array]:
    """The pixels that each tap of a pooling window reads; those outside the map are `fill`."""
    axes = len(kernel)
    around = [(0, 0), (0, 0), *zip(pads[:axes], pads[axes:], strict=True)]
    padded = np.pad(x, around, constant_values=fill)
    spans = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
    out = [(n - a) // s + 1 for n, a, s in zip(padded.shape[2:], spans, strides, strict=True)]
    return [_window(padded, tap, dilations, out, strides) for tap in np.ndindex(*kernel)]


def pool_operators(refused: type[Exception]) -> list[Any]:
    """AveragePool and MaxPool for ONNX's evaluator; they raise `refused` for unknown forms."""
    from onnx.reference.op_run import OpRun

    class AveragePool(OpRun):
        def _run(self, x: Any, count_include_pad: Any = None, **options: Any) -> tuple[Any]:
            settings = _settings(x, options, refused)
            total = sum(windows(x, *settings, fill=0.0))
            inside = np.ones((1, 1, *x.shape[2:]))
            counts = sum(windows(inside, *settings, fill=1.0 if count_include_pad else 0.0))
            with np.errstate(invalid="ignore"):
                return (total / counts,)

    class MaxPool(OpRun):
        def _run(self, x: Any, storage_order: Any = None, **options: Any) -> tuple[Any]:
            if len(self.onnx_node.output) > 1 or x.dtype.kind != "f":
                raise refused("MaxPool of integers, or with indices")
            views = windows(x, *_settings(x, options, refused), fill=-np.inf)
            return (functools.reduce(np.maximum, views),)

    return [AveragePool, MaxPool]


def _settings(
    x: Any, options: dict[str, Any], refused: type[Exception]
) -> tuple[Any, Any, Any, list[int]]:
    """Kernel, strides, dilations and pads of a pool. Raises `refused`."""
    kernel, one = options["kernel_shape"], [1] * (x.ndim - 2)
    strides, dilations = options.get("strides") or one, options.get("dilations") or one
    pads, mode = options.get("pads") or [0] * 2 * len(one), options.get("auto_pad") or "NOTSET"
    if mode.startswith("SAME"):
        pads = same_pads(x.shape[2:], kernel, strides, dilations, mode)
    ends = zip(x.shape[2:], kernel, strides, dilations, pads, pads[len(one) :], strict=False)
    rest = [(n + b + e - d * (k - 1) - 1) % s for n, k, s, d, b, e in ends]
    if options.get("ceil_mode") and any(rest):
        raise refused("a pool whose last window exceeds the map")
    return kernel, strides, dilations, list(pads)
