"""Output sizes of operators whose windows slide over a map, as ONNX Runtime computes them.

NOTSET, VALID   floor((size + begin + end - span) / stride) + 1,   span = dilation (k - 1) + 1
ceil_mode       the same, rounded up, without a last window that begins behind the map
SAME_*          the padding is that for ceil(size / stride) windows without dilation
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from flatfold.frontend.canonicalization.operator_shapes.rule import Operands, Sizes, unknown
from flatfold.frontend.canonicalization.symbolic_dims import Size


@dataclass(frozen=True)
class _Window:
    """A window along one axis."""

    kernel: int
    stride: int
    dilation: int
    begin: int
    end: int

    @property
    def span(self) -> int:
        return self.dilation * (self.kernel - 1) + 1


def convolution(operands: Operands, kernel_index: int = 1) -> list[Sizes | None]:
    """Conv and its quantized and fused forms; the kernel is input `kernel_index`."""
    before, kernel = operands.sizes(0), operands.sizes(kernel_index)
    if kernel is None:
        return [None if before is None else (before[0], *unknown(len(before) - 1))]
    if before is None:
        return [(None, kernel[0], *unknown(len(kernel) - 2))]
    if len(before) != len(kernel):
        return []
    windows = _windows(operands, operands.integers("kernel_shape") or list(kernel[2:]))
    if operands.text("auto_pad", "NOTSET").startswith("SAME"):
        windows = [window and replace(window, dilation=1) for window in windows]
    return [(before[0], kernel[0], *_map(operands, before[2:], windows, ceil=False))]


def quantized_convolution(operands: Operands) -> list[Sizes | None]:
    """QLinearConv."""
    return convolution(operands, 3)


def pool(operands: Operands) -> list[Sizes | None]:
    """MaxPool with one or two outputs, AveragePool and LpPool."""
    before, kernel = operands.sizes(0), operands.integers("kernel_shape") or []
    if before is None:
        return operands.outputs(unknown(len(kernel) + 2))
    if len(before) != len(kernel) + 2:
        return []
    ceil = operands.integer("ceil_mode", 0) != 0
    windows = _windows(operands, kernel)
    return operands.outputs((*before[:2], *_map(operands, before[2:], windows, ceil=ceil)))


def global_pool(operands: Operands) -> list[Sizes | None]:
    """GlobalAveragePool and the like."""
    before = operands.sizes(0)
    return [None if before is None else (*before[:2], *(1 for _ in before[2:]))]


def transposed_convolution(operands: Operands) -> list[Sizes | None]:
    """ConvTranspose."""
    before, kernel = operands.sizes(0), operands.sizes(1)
    if kernel is None:
        return [None if before is None else (before[0], *unknown(len(before) - 1))]
    groups = operands.integer("group", 1)
    channels = kernel[1] * groups if isinstance(kernel[1], int) else None
    if before is None:
        return [(None, channels, *unknown(len(kernel) - 2))]
    if len(before) != len(kernel):
        return []
    rank = len(kernel) - 2
    asked = operands.integers("output_shape")
    if asked:
        return [(before[0], channels, *asked[-rank:])]
    windows = _windows(operands, operands.integers("kernel_shape") or list(kernel[2:]))
    extra = operands.integers("output_padding") or [0] * rank
    mode = operands.text("auto_pad", "NOTSET")
    sizes = [
        _grown(size, window, more, mode)
        for size, window, more in zip(before[2:], windows, extra, strict=True)
    ]
    return [(before[0], channels, *sizes)]


def unpool(operands: Operands) -> list[Sizes | None]:
    """MaxUnpool."""
    before, kernel = operands.sizes(0), operands.integers("kernel_shape") or []
    if operands.has(2):
        asked = operands.numbers("", 2)
        return [unknown(len(kernel) + 2) if asked is None else tuple(asked)]
    if before is None:
        return [unknown(len(kernel) + 2)]
    windows = _windows(operands, kernel)
    sizes = [
        _grown(size, window, 0, "NOTSET") for size, window in zip(before[2:], windows, strict=True)
    ]
    return [(*before[:2], *sizes)]


def pooled_boxes(operands: Operands) -> list[Sizes | None]:
    """RoiAlign and MaxRoiPool: one map for each box."""
    before, boxes = operands.sizes(0), operands.sizes(1)
    size = operands.integers("pooled_shape") or [
        operands.integer("output_height", 1),
        operands.integer("output_width", 1),
    ]
    return [(None if boxes is None else boxes[0], None if before is None else before[1], *size)]


def columns_to_map(operands: Operands) -> list[Sizes | None]:
    """Col2Im."""
    before, image, block = operands.sizes(0), operands.numbers("", 1), operands.numbers("", 2)
    channels: Size = before[1] if before is not None else None
    for size in block or ():
        channels = channels // size if isinstance(channels, int) else None
    batch = None if before is None else before[0]
    known = isinstance(channels, int) and block is not None
    return [None if image is None else (batch, channels if known else None, *image)]


def _windows(operands: Operands, kernel: Sequence[Size]) -> list[_Window | None]:
    """The window along each axis; None where the size of the kernel is unknown."""
    rank = len(kernel)
    strides = operands.integers("strides") or [1] * rank
    dilations = operands.integers("dilations") or [1] * rank
    pads = operands.integers("pads") or [0] * (2 * rank)
    if operands.text("auto_pad", "NOTSET") != "NOTSET":
        pads = [0] * (2 * rank)
    numbers = zip(kernel, strides, dilations, pads[:rank], pads[rank:], strict=True)
    return [_Window(size, *rest) if isinstance(size, int) else None for size, *rest in numbers]


def _map(
    operands: Operands, before: Sizes, windows: list[_Window | None], *, ceil: bool
) -> list[Size]:
    mode = operands.text("auto_pad", "NOTSET")
    pairs = zip(before, windows, strict=True)
    return [_swept(size, window, mode, ceil, operands) for size, window in pairs]


def _swept(size: Size, window: _Window | None, mode: str, ceil: bool, operands: Operands) -> Size:
    """The number of windows on an axis of `size`."""
    if window is None or size is None:
        return None
    padding = window.begin + window.end
    if not isinstance(size, int):
        same = mode.startswith("SAME") and window.dilation == 1
        if ceil and window.stride > 1:
            return None
        room = window.stride - 1 if same else padding - window.span + window.stride
        return operands.shapes.divided(operands.shapes.shifted(size, room), window.stride)
    if mode.startswith("SAME"):
        wanted = -(-size // window.stride)
        padding = (wanted - 1) * window.stride + window.kernel - size
    room = size + padding - window.span
    if not ceil:
        return int(room / window.stride) + 1  # rounded towards zero
    count = -(-room // window.stride) + 1
    return count - 1 if (count - 1) * window.stride >= size + window.begin else count


def _grown(size: Size, window: _Window | None, more: int, mode: str) -> Size:
    """The size from which `window` would make `size`."""
    if window is None or not isinstance(size, int):
        return None
    if mode.startswith("SAME"):
        return min(size * window.stride, (size - 1) * window.stride + window.span)
    return (size - 1) * window.stride + more + window.span - window.begin - window.end
