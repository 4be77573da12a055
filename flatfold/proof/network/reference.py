"""A float64 reference for a graph: ONNX's reference evaluator on the graph promoted to double."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from flatfold.proof.interpreter.convolution import (
    convolve,
    pool_operators,
    same_pads,
    transpose_convolve,
)
from flatfold.proof.interpreter.pair import Unsupported
from flatfold.proof.interpreter.sampling import deform_conv, grid_sample

if TYPE_CHECKING:
    import onnx

Outputs = list[npt.NDArray[Any]]
Reference = Callable[[Mapping[str, npt.NDArray[Any]]], Outputs]

FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
SMALL = 1 << 10  # elements of a weight

# Operators with operands that the standard fixes to float32; a graph with one is not promoted.
FIXED = (
    "Resize",
    "Upsample",
    "QuantizeLinear",
    "DequantizeLinear",
    "QLinearConv",
    "DynamicQuantizeLinear",
)


class NoReference(Exception):
    """This graph has no float64 reference; the text says why."""


def promoted(model: ir.Model) -> tuple[onnx.ModelProto, dict[str, ir.TensorProtocol]]:
    """The model with every floating-point tensor in double, and the weights that it lacks.

    Weights of more than SMALL elements are inputs of the model; in double they would all be in
    memory at once. Raises NoReference.
    """
    double = model.clone()
    for graph in double.graphs():
        for node in graph:
            if node.op_type in FIXED or node.domain not in ("", "ai.onnx"):
                raise NoReference(f"{node.domain or 'ai.onnx'}.{node.op_type} has no double form")
            _promote_attributes(node)
            for value in node.outputs:
                _promote_value(value)
        if graph is not double.graph:
            for value in (*graph.inputs, *graph.initializers.values()):
                _promote_value(value)
    weights = _take_weights(double.graph)
    for value in (*double.graph.inputs, *double.graph.initializers.values()):
        _promote_value(value)
    return ir.to_proto(double), weights


def _take_weights(graph: ir.Graph) -> dict[str, ir.TensorProtocol]:
    """Large floating-point initializers, which become inputs of the graph without a value."""
    weights = {}
    for name, value in list(graph.initializers.items()):
        tensor = value.const_value
        if tensor is None or tensor.size <= SMALL or tensor.dtype not in FLOATS:
            continue
        weights[name], value.const_value = tensor, None
        del graph.initializers[name]
        if not value.is_graph_input():
            graph.inputs.append(value)
    return weights


def _promote_value(value: ir.Value) -> None:
    if value.const_value is not None and value.const_value.dtype in FLOATS:
        array = value.const_value.numpy().astype(np.float64)
        value.const_value = ir.Tensor(array, name=value.name)
    if value.dtype in FLOATS:
        value.type = ir.TensorType(ir.DataType.DOUBLE)  # a clone shares its type object


def _promote_attributes(node: ir.Node) -> None:
    for name, attribute in list(node.attributes.items()):
        # Not as_tensor(), which asks by its methods whether this is a tensor: slow in Python 3.11.
        if attribute.type == ir.AttributeType.TENSOR and attribute.value.dtype in FLOATS:
            array = attribute.value.numpy().astype(np.float64)
            node.attributes[name] = ir.AttrTensor(name, ir.Tensor(array))
    to = node.attributes.get("to")
    if node.op_type == "Cast" and to is not None and ir.DataType(to.as_int()) in FLOATS:
        node.attributes["to"] = ir.AttrInt64("to", int(ir.DataType.DOUBLE))


def onnx_reference(model: ir.Model) -> Reference:
    """Outputs of `model` in float64, for inputs given by name. Raises NoReference."""
    from onnx.reference import ReferenceEvaluator

    proto, weights = promoted(model)
    try:
        evaluator = ReferenceEvaluator(proto, new_ops=_operators())
    except Exception as why:
        raise NoReference(f"the ONNX reference evaluator refused the graph: {why}") from None

    def run(feeds: Mapping[str, npt.NDArray[Any]]) -> Outputs:
        double = {k: v.astype(np.float64) if v.dtype.kind == "f" else v for k, v in feeds.items()}
        try:
            with np.errstate(all="ignore"):  # some values are not finite
                return [np.asarray(y) for y in _run_nodes(evaluator, double, weights)]
        except Exception as why:
            raise NoReference(f"the ONNX reference evaluator failed: {why}") from None

    return run


class _Values(dict[str, Any]):
    """Values by name. A weight is turned into double each time it is read, and not kept."""

    def __init__(self, known: Mapping[str, Any], weights: Mapping[str, ir.TensorProtocol]) -> None:
        super().__init__(known)
        self._weights = weights

    def __missing__(self, name: str) -> npt.NDArray[np.float64]:
        return self._weights[name].numpy().astype(np.float64)


def _run_nodes(
    evaluator: Any,
    feeds: Mapping[str, npt.NDArray[Any]],
    weights: Mapping[str, ir.TensorProtocol],
) -> list[Any]:
    """The outputs; what no further node reads is forgotten, so that few values are kept at once."""
    nodes = evaluator.rt_nodes_
    values = _Values({**evaluator.rt_inits_, **feeds, "": None}, weights)
    if any(node.need_context() for node in nodes):  # a subgraph may read any value
        return list(evaluator.run(None, {**{name: values[name] for name in weights}, **feeds}))
    last = {name: number for number, node in enumerate(nodes) for name in node.input}
    kept = {"", *evaluator.output_names}
    for number, node in enumerate(nodes):
        outputs = node.run(*(values[name] for name in node.input))
        values.update(zip(node.output, outputs, strict=False))
        for name in {*node.input, *node.output}:
            if last.get(name, -1) <= number and name not in kept:
                values.pop(name, None)
    return [values[name] for name in evaluator.output_names]


def _operators() -> list[Any]:
    """Operators in place of the evaluator's: its Conv is slow, its ConvTranspose has no groups."""
    from onnx.reference.op_run import OpRun

    class Conv(OpRun):
        def _run(self, x: Any, w: Any, b: Any = None, **options: Any) -> tuple[Any]:
            one = [1] * (w.ndim - 2)
            strides, dilations = options.get("strides") or one, options.get("dilations") or one
            mode = options.get("auto_pad") or "NOTSET"
            pads = options.get("pads") or [0] * 2 * len(one)
            if mode.startswith("SAME"):
                pads = same_pads(x.shape[2:], w.shape[2:], strides, dilations, mode)
            y = convolve(x, w, strides, dilations, pads, options.get("group") or 1)
            return (y if b is None else y + b.reshape(-1, *one),)

    class ConvTranspose(OpRun):
        def _run(self, x: Any, w: Any, b: Any = None, **options: Any) -> tuple[Any]:
            y = transpose_convolve(x, w, options)
            if y is None:
                raise NoReference("ConvTranspose with a larger output than it has values")
            one = [1] * (w.ndim - 2)
            return (y if b is None else y + b.reshape(-1, *one),)

    others = (_batch_norm(), _gather_elements(), *_samplers(), *pool_operators(NoReference))
    return [Conv, ConvTranspose, *others]


def _batch_norm() -> Any:
    """BatchNormalization: the evaluator's own takes the statistics of the batch before opset 14."""
    from onnx.reference.op_run import OpRun

    class BatchNormalization(OpRun):
        def _run(self, x: Any, *parts: Any, **options: Any) -> tuple[Any]:
            if options.get("training_mode") or options.get("spatial") == 0 or len(self.output) > 1:
                raise NoReference("BatchNormalization in training mode, or of each pixel")
            one = [1] * (x.ndim - 2)
            scale, shift, mean, variance = (part.reshape(-1, *one) for part in parts)
            epsilon = 1e-5 if options.get("epsilon") is None else options["epsilon"]
            return ((x - mean) / np.sqrt(variance + epsilon) * scale + shift,)

    return BatchNormalization


def _gather_elements() -> Any:
    """GatherElements: the evaluator's own never ends for an index far outside the axis."""
    from onnx.reference.op_run import OpRun

    class GatherElements(OpRun):
        def _run(self, x: Any, indices: Any, axis: Any = None) -> tuple[Any]:
            along = (axis or 0) % x.ndim
            if np.any((indices < -x.shape[along]) | (indices >= x.shape[along])):
                raise NoReference("GatherElements reads outside the axis")
            sizes = [x.shape[a] if a == along else n for a, n in enumerate(indices.shape)]
            return (np.take_along_axis(x[tuple(map(slice, sizes))], indices, along),)

    return GatherElements


def _samplers() -> list[Any]:
    """GridSample and DeformConv: the evaluator's own loop over pixels in Python."""
    from onnx.reference.op_run import OpRun

    class GridSample(OpRun):
        def _run(self, x: Any, grid: Any, **options: Any) -> tuple[Any]:
            present = {k: v for k, v in options.items() if v is not None}
            try:
                return (grid_sample(x, grid, **present),)
            except Unsupported as why:
                raise NoReference(str(why)) from None

    class DeformConv(OpRun):
        def _run(
            self, x: Any, w: Any, offset: Any, b: Any = None, mask: Any = None, **options: Any
        ) -> Any:
            present = {k: v for k, v in options.items() if v is not None}
            y = deform_conv(x, w, offset, mask, **present)
            return (y if b is None else y + b.reshape(-1, *(1,) * (w.ndim - 2)),)

    return [GridSample, DeformConv]
