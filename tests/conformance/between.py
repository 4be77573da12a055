"""A case of the suite between layers, so that there is something to rewrite around its operator.

Most weights of the suite are inputs, and most models one operator. Here all inputs but the first
are constants, and layers with drawn weights stand before the first input and behind each output.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from flatfold.passes.pipeline import OLDEST_OPSET

Sizes = Sequence[int]

# Both sides round in single precision, in another order. A sum here has up to a few hundred terms
# and one layer may cancel what another adds, so a thousand roundings of the largest number.
TOLERANCE = 1000 * 2.0**-24


class _Layers:
    """Adds layers to `graph`; each takes and gives a value, of the same shape."""

    def __init__(self, graph: onnx.GraphProto, rng: np.random.Generator) -> None:
        self.graph, self.rng = graph, rng
        self.nodes: list[onnx.NodeProto] = []

    def behind(self, value: str, sizes: Sizes) -> str:
        kinds: list[Callable[[str, Sizes], str]] = [self.affine, self.conv, self.both, self.sum]
        return kinds[self.rng.integers(len(kinds) if len(sizes) > 2 else 1)](value, sizes)

    def affine(self, value: str, sizes: Sizes) -> str:
        column = (sizes[1], *(1,) * (len(sizes) - 2))
        scaled = self._node("Mul", value, self._weight(self.rng.uniform(0.5, 1.5, column)))
        return self._node("Add", scaled, self._weight(self.rng.standard_normal(column)))

    def conv(self, value: str, sizes: Sizes) -> str:
        axes = len(sizes) - 2
        kernel = self.rng.standard_normal((sizes[1], sizes[1], *(3,) * axes)) / 3
        return self._node("Conv", value, self._weight(kernel), pads=[1] * (2 * axes))

    def both(self, value: str, sizes: Sizes) -> str:
        return self.conv(self.affine(value, sizes), sizes)

    def sum(self, value: str, sizes: Sizes) -> str:
        return self._node("Sum", self.affine(value, sizes), self.conv(value, sizes))

    def _node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"between_{len(self.graph.initializer)}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def _weight(self, array: NDArray[Any]) -> str:
        name = f"between_weight_{len(self.graph.initializer)}"
        self.graph.initializer.append(numpy_helper.from_array(array.astype(np.float32), name))
        return name


def between_layers(
    model: onnx.ModelProto, inputs: Sequence[Any], outputs: Sequence[Any], seed: Sequence[int]
) -> tuple[onnx.ModelProto, list[Any]] | None:
    """The model between layers, and what is left of its inputs; None if it has no place for any.

    `outputs` are what it gives for `inputs`: they tell the sizes.
    """
    opset = max((e.version for e in model.opset_import if e.domain in ("", "ai.onnx")), default=0)
    if opset < OLDEST_OPSET:
        return None
    made = onnx.ModelProto()
    made.CopyFrom(model)
    made.ir_version = max(made.ir_version, 4)  # the first in which a weight need not be an input
    graph, nodes = made.graph, list(made.graph.node)
    left = _frozen(graph, inputs)
    before = _Layers(graph, np.random.default_rng(seed))
    if graph.input and left and _is_map(graph.input[0], left[0]):
        _read_instead(nodes, graph.input[0].name, before.behind(graph.input[0].name, left[0].shape))
    after = _Layers(graph, before.rng)
    for result, array in zip(graph.output, outputs, strict=True):
        if _is_map(result, array):
            result.name = after.behind(result.name, array.shape)
    if not before.nodes and not after.nodes:
        return None
    del graph.node[:]
    graph.node.extend([*before.nodes, *nodes, *after.nodes])
    return made, left


def _frozen(graph: onnx.GraphProto, inputs: Sequence[Any]) -> list[Any]:
    """Make constants of the inputs but the first, where they are tensors; the values left."""
    known = {tensor.name for tensor in graph.initializer}
    given = [value for value in graph.input if value.name not in known]
    left = list(inputs[:1])
    for value, array in zip(given[1:], inputs[1:], strict=True):
        tensor = value.type.tensor_type
        if isinstance(array, np.ndarray | np.generic) and array.dtype.kind in "biuf":
            constant = numpy_helper.from_array(np.asarray(array), value.name)
            if constant.data_type == tensor.elem_type:
                graph.initializer.append(constant)
                graph.input.remove(value)
                continue
        left.append(array)
    return left


def _is_map(value: onnx.ValueInfoProto, array: Any) -> bool:
    """Single precision, with a batch and channels, and not empty."""
    kind = value.type.tensor_type
    return (
        kind.elem_type == onnx.TensorProto.FLOAT
        and isinstance(array, np.ndarray)
        and array.ndim == len(kind.shape.dim) >= 2
        and array.size > 0
    )


def _read_instead(nodes: Sequence[onnx.NodeProto], old: str, new: str) -> None:
    for node in nodes:
        for i, name in enumerate(node.input):
            if name == old:
                node.input[i] = new


def difference(expected: Any, found: Any) -> float:
    """The largest one, relative to the largest finite number; inf where only one is finite."""
    if not isinstance(expected, np.ndarray) or expected.dtype.kind != "f":
        return 0.0
    if expected.shape != found.shape:
        return float("inf")
    one, two = expected.astype(np.float64), found.astype(np.float64)
    finite = np.isfinite(one)
    if not np.array_equal(finite, np.isfinite(two)):
        return float("inf")
    scale = max(1.0, np.max(np.abs(one[finite]), initial=0.0))
    return float(np.max(np.abs(one[finite] - two[finite]), initial=0.0) / scale)
