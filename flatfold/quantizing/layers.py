"""The layers of a graph that can compute on codes: their weights as matrices, and what those read.

Every layer is y = W x in each of its groups, W[outputs, K] with K the inputs of the group times the
taps, and x[K, N] a column for each of the N places that the layer computes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from numpy.lib.stride_tricks import sliding_window_view

from flatfold.passes.reading.node import constant, ints, window

Array = npt.NDArray[np.float64]
Columns = npt.NDArray[np.float32]

CONVOLUTIONS = ("Conv", "ConvTranspose")


@dataclass(frozen=True, eq=False)
class Layer:
    """A node with a constant weight in float32. `axis` of the weight has the outputs."""

    node: ir.Node
    weight: npt.NDArray[np.float32]
    axis: int
    groups: int = 1

    @property
    def name(self) -> str:
        return self.node.name or ""

    @property
    def data(self) -> ir.Value:
        value = self.node.inputs[0]
        assert value is not None
        return value

    @property
    def output(self) -> ir.Value:
        return self.node.outputs[0]

    @property
    def outputs(self) -> int:
        """The number of output channels."""
        per_group: int = self.weight.shape[self.axis]
        return per_group * (self.groups if self.node.op_type == "ConvTranspose" else 1)

    @property
    def channel_axis(self) -> int:
        """The axis of the output that has the channels."""
        return 1 if self.node.op_type in CONVOLUTIONS else -1

    def matrices(self, weight: npt.NDArray[Any] | None = None) -> npt.NDArray[Any]:
        """[groups, outputs of a group, K] of the weight, or of an array of its shape."""
        array: npt.NDArray[Any] = self.weight if weight is None else weight
        if self.node.op_type == "ConvTranspose":
            split = array.reshape(self.groups, -1, array.shape[1], math.prod(array.shape[2:]))
            return np.asarray(split.transpose(0, 2, 1, 3).reshape(self.groups, array.shape[1], -1))
        if self.node.op_type == "Conv":
            return array.reshape(self.groups, len(array) // self.groups, -1)
        return np.asarray(array if self.axis == 0 else array.T)[None]

    def from_matrices(self, matrices: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """An array of the shape of the weight, the inverse of `matrices`."""
        shape: tuple[int, ...] = self.weight.shape
        if self.node.op_type == "ConvTranspose":
            inputs, taps = shape[0] // self.groups, math.prod(shape[2:])
            split = matrices.reshape(self.groups, shape[1], inputs, taps)
            return np.asarray(split.transpose(0, 2, 1, 3).reshape(shape))
        if self.node.op_type == "Conv":
            return matrices.reshape(shape)
        return np.asarray(matrices[0] if self.axis == 0 else matrices[0].T)

    def by_row(self, scale: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """[groups, outputs of a group] of a scale for all, or for each index along the axis."""
        each = np.broadcast_to(scale, self.weight.shape[self.axis])
        if self.node.op_type == "ConvTranspose":
            return np.tile(each, (self.groups, 1))
        return each.reshape(self.groups, -1)

    def columns(self, data: npt.NDArray[np.float32], most: int, seed: int = 0) -> Columns:
        """[groups, K, N] of what the weight multiplies where the layer reads `data`.

        Of more than `most` places, that many are drawn. Raises Decline where the padding depends
        on sizes that are not known.
        """
        rng = np.random.default_rng(seed)
        if self.node.op_type not in CONVOLUTIONS:
            rows = data.reshape(-1, data.shape[-1])
            return np.ascontiguousarray(rows[_some(len(rows), most, rng)].T)[None]
        kernel = self.weight.shape[2:]
        strides, dilations, begin, end = window(self.node, kernel)
        if self.node.op_type == "ConvTranspose":
            data = _between_zeros(data, strides)
            reach = [d * (k - 1) for d, k in zip(dilations, kernel, strict=True)]
            begin = tuple(r - b for r, b in zip(reach, begin, strict=True))
            extra = ints(self.node, "output_padding", (0,) * len(kernel))
            end = tuple(r - e + x for r, e, x in zip(reach, end, extra, strict=True))
            strides = (1,) * len(kernel)
        columns = _windows(_padded(data, begin, end), kernel, strides, dilations, most, rng)
        if self.node.op_type == "ConvTranspose":  # of which the kernel runs backwards
            backwards: tuple[Any, ...] = (..., *(slice(None, None, -1),) * len(kernel))
            columns = columns[backwards]
        split = columns.reshape(len(columns), self.groups, -1)
        return np.ascontiguousarray(split.transpose(1, 2, 0))


def by_data(layers: Sequence[Layer]) -> dict[ir.Value, list[Layer]]:
    """The layers by the value that they read."""
    found: dict[ir.Value, list[Layer]] = {}
    for layer in layers:
        found.setdefault(layer.data, []).append(layer)
    return found


def layers_of(model: ir.Model) -> list[Layer]:
    """The layers of the main graph, in order."""
    found = (layer_of(node) for node in model.graph)
    return [layer for layer in found if layer is not None]


def layer_of(node: ir.Node) -> Layer | None:
    """The node as a layer, None where it is none."""
    if node.domain not in ("", "ai.onnx") or len(node.inputs) < 2:
        return None
    data, weight = node.inputs[0], constant(node.inputs[1])
    if data is None or data.dtype != ir.DataType.FLOAT or data.const_value is not None:
        return None
    if weight is None or weight.dtype != np.float32 or not weight.size:
        return None
    if not np.isfinite(weight).all():
        return None
    if node.op_type in CONVOLUTIONS and weight.ndim >= 3:
        axis = 0 if node.op_type == "Conv" else 1
        return Layer(node, weight, axis, node.attributes.get_int("group", 1))
    if node.op_type == "MatMul" and weight.ndim == 2:
        return Layer(node, weight, 1)
    plain = [node.attributes.get_float(name, 1.0) for name in ("alpha", "beta")] == [1.0, 1.0]
    if node.op_type == "Gemm" and plain and not node.attributes.get_int("transA", 0):
        return Layer(node, weight, 0 if node.attributes.get_int("transB", 0) else 1)
    return None


def bias_of(layer: Layer) -> Array | None:
    """The bias of each output, zeros where there is none; None where it cannot be another one."""
    if layer.node.op_type == "MatMul":
        return None
    value = layer.node.inputs[2] if len(layer.node.inputs) > 2 else None
    if value is None:
        return np.zeros(layer.outputs)
    bias = constant(value)
    if bias is None or bias.size != layer.outputs or bias.shape[-1:] != (layer.outputs,):
        return None
    return bias.reshape(-1).astype(np.float64)


def _some(count: int, most: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    return np.arange(count) if count <= most else rng.choice(count, most, replace=False)


def _between_zeros(
    data: npt.NDArray[np.float32], strides: tuple[int, ...]
) -> npt.NDArray[np.float32]:
    """The map with stride - 1 zeros between its pixels."""
    sizes = [s * (n - 1) + 1 for s, n in zip(strides, data.shape[2:], strict=True)]
    wide = np.zeros((*data.shape[:2], *sizes), data.dtype)
    pixels: tuple[Any, ...] = (..., *(slice(None, None, s) for s in strides))
    wide[pixels] = data
    return wide


def _padded(
    data: npt.NDArray[np.float32], begin: tuple[int, ...], end: tuple[int, ...]
) -> npt.NDArray[np.float32]:
    """The map with zeros around it; less of it where a number is negative."""
    ends = zip(begin, end, data.shape[2:], strict=True)
    inside: tuple[Any, ...] = (..., *(slice(max(-b, 0), n - max(-e, 0)) for b, e, n in ends))
    around = [(max(b, 0), max(e, 0)) for b, e in zip(begin, end, strict=True)]
    return np.pad(data[inside], [(0, 0), (0, 0), *around])


def _windows(
    data: npt.NDArray[np.float32],
    kernel: tuple[int, ...],
    strides: tuple[int, ...],
    dilations: tuple[int, ...],
    most: int,
    rng: np.random.Generator,
) -> npt.NDArray[np.float32]:
    """[places, channels, *kernel] of what a kernel covers, at all places or some."""
    axes = len(kernel)
    reach = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
    view = sliding_window_view(data, reach, axis=tuple(range(2, 2 + axes)))
    steps = [slice(None, None, step) for step in (*strides, *dilations)]
    every: tuple[Any, ...] = (slice(None), slice(None), *steps)
    view = view[every]
    view = np.moveaxis(view, 1, 1 + axes)  # [sample, *places, channels, *kernel]
    sizes = view.shape[: 1 + axes]
    return np.asarray(view[np.unravel_index(_some(math.prod(sizes), most, rng), sizes)])
