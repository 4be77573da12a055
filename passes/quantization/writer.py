"""A float graph with the codes of a record: QuantizeLinear and DequantizeLinear where they belong.

A value that is stored as codes is written as codes once, behind the node that computes it and its
Relu, and whoever reads it reads what the codes stand for. Between two nodes that both compute in
float nothing is rounded.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from flatfold.passes.lowering.replacement import Names, initializer, remove_unused_initializers
from flatfold.passes.quantization.dialect import MOVING, Dialect
from flatfold.passes.quantization.record import LEAST_SCALE, Codes, Quantization, Range

OPSET = 13  # from which on scales can be one for each channel
CONVERTED = 18  # the first opset that the converter writes
LARGEST_BIAS = 2**31 - 1
BENDS_AT_0 = ("Clip", "Relu")  # that become part of a rounding to codes that end at the same place


def write_codes(model: ir.Model, quantization: Quantization, dialect: Dialect) -> ir.Model:
    """A graph that computes what `quantization` says, as the engine of `dialect` expects it.

    `model` stays as it is. Layers of operators that the engine does not run on codes stay float, as
    do those that read values without a range.
    """
    copy = model.clone()
    raise_opset(copy)
    _Writer(copy, quantization, dialect).write()
    return copy


def raise_opset(model: ir.Model) -> None:
    """Convert `model` in place to an opset with a scale for each channel, if it is older."""
    if model.opset_imports.get("", OPSET) < OPSET:
        from onnxscript import version_converter

        version_converter.convert_version(model, CONVERTED)


class _Writer:
    """One graph on its way to codes."""

    def __init__(self, model: ir.Model, quantization: Quantization, dialect: Dialect) -> None:
        self.graph = model.graph
        self.names = Names.of(model)
        self.quantization, self.dialect = quantization, dialect
        self.layers = {node: codes for node in model.graph if (codes := self._codes_of(node))}
        self.wanted = self._wanted()
        self.computing = dict.fromkeys(self.layers)  # the nodes that compute on codes
        self.coded = self._coded()

    def _codes_of(self, node: ir.Node) -> Codes | None:
        """The codes of a layer's weight; None where it stays float."""
        if node.name not in self.quantization.weights or not self.dialect.takes(node):
            return None
        if self._range(node.inputs[0]) is None:
            return None
        if node.op_type in self.dialect.ends and self._range(_end(node)) is None:
            return None
        return self.quantization.weights.get(node.name or "")

    def _range(self, value: ir.Value | None) -> Range | None:
        return None if value is None else self.quantization.ranges.get(value.name or "")

    def _wanted(self) -> set[ir.Value]:
        """The values that a layer reads as codes, directly or behind operators on codes."""
        wanted = {node.inputs[0] for node in self.layers}
        for node in reversed(self.graph):
            if node.op_type in self.dialect.operators and _end(node) in wanted:
                wanted |= set(_data(node))
        return {value for value in wanted if value is not None}

    def _coded(self) -> dict[ir.Value, Range]:
        """The values that are stored as codes, each with its range."""
        found: dict[ir.Value, None] = {}
        for node in self.graph:
            if node in self.layers:
                found[_data(node)[0]] = None
                if node.op_type in self.dialect.ends or _end(node) in self.wanted:
                    found[_end(node)] = None
            elif self._is_on_codes(node, found):
                self.computing[node] = None
                found[_end(node)] = None
        ranges = {value: self._range(value) for value in found}
        return {value: limits for value, limits in ranges.items() if limits is not None}

    def _is_on_codes(self, node: ir.Node, coded: dict[ir.Value, None]) -> bool:
        """Whether an operator without weights reads codes only, and a layer wants what it makes."""
        data = _data(node)
        has_ranges = all(self._range(value) is not None for value in (*data, _end(node)))
        return (
            node.op_type in self.dialect.operators
            and _end(node) in self.wanted
            and len(data) == _floats(node)
            and all(value in coded for value in data)
            and has_ranges
        )

    def write(self) -> None:
        rounded = {value: self._rounded(value, limits) for value, limits in self.coded.items()}
        for node, codes in self.layers.items():
            self._write_layer(node, codes)
        made = {_end(node) for node in self.computing}
        for value, (store, other) in rounded.items():
            for node, index in tuple(value.uses()):
                if node is store:
                    continue
                if value in made or node in self.computing:
                    node.replace_input_with(index, other)
            if value in made and value.is_graph_output():
                self._close(value, other)
        self.graph.sort()
        remove_unused_initializers(self.graph)

    def _close(self, value: ir.Value, other: ir.Value) -> None:
        """Make what the codes stand for the output, under its name."""
        value.name, other.name = self.names.fresh(f"{value.name}.float"), value.name
        for index, output in enumerate(self.graph.outputs):
            if output is value:
                self.graph.outputs[index] = other

    def _rounded(self, value: ir.Value, limits: Range) -> tuple[ir.Node, ir.Value]:
        """The QuantizeLinear of a value, and what the codes stand for."""
        scale, zero = self._grid(value, limits)
        dtype = np.dtype(self.dialect.activations)
        one = self._constant(f"{value.name}.scale", np.asarray(scale, np.float32))
        two = self._constant(f"{value.name}.zero_point", np.asarray(zero, dtype))
        store = self._node("QuantizeLinear", [value, one, two], f"{value.name}.codes", value)
        store.outputs[0].type = ir.TensorType(ir.DataType.from_numpy(dtype))
        load = self._loaded(store.outputs[0], one, two, f"{value.name}.rounded", value)
        return store, load

    def _grid(self, value: ir.Value, limits: Range) -> tuple[np.float32, int]:
        """Scale and zero point; those of what is read where values are only moved around."""
        node = value.producer()
        while node is not None and node in self.computing and node.op_type in MOVING:
            value = _data(node)[0]
            limits, node = self.coded[value], value.producer()
        return limits.grid(self.dialect.activations)

    def _write_layer(self, node: ir.Node, codes: Codes) -> None:
        data, weight = _data(node)[0], node.inputs[1]
        assert weight is not None
        one = self._constant(f"{weight.name}.scale", codes.scale)
        two = self._constant(f"{weight.name}.zero_point", np.zeros(codes.scale.shape, np.int8))
        stored = self._constant(f"{weight.name}.codes", codes.codes)
        name = f"{weight.name}.rounded"
        node.replace_input_with(1, self._loaded(stored, one, two, name, weight, codes.axis))
        host, index = _place_of_bias(node)
        bias = self._bias(node, host, index)
        if bias is None:
            return
        if len(host.inputs) <= index:
            host.resize_inputs(index + 1)
        scale, _ = self._grid(data, self.coded[data])
        each = codes.scale  # of a transposed layer, those of one group, which all groups have
        each = np.tile(each, bias.size // each.size) if each.ndim else each
        host.replace_input_with(index, self._written_bias(node, bias, scale * each))

    def _bias(self, node: ir.Node, host: ir.Node, index: int) -> npt.NDArray[np.float64] | None:
        """The bias of a layer, of which there is one for each output; None where it has none."""
        corrected = self.quantization.biases.get(node.name or "")
        value = host.inputs[index] if len(host.inputs) > index else None
        if corrected is not None or value is None or value.const_value is None:
            return corrected
        array = value.const_value.numpy().astype(np.float64)
        outputs = node.outputs[0].shape
        count = None if outputs is None else outputs[-1 if node.op_type == "MatMul" else 1]
        return array.reshape(-1) if array.size == count == array.shape[-1] else None

    def _written_bias(
        self, node: ir.Node, bias: npt.NDArray[np.float64], scale: npt.NDArray[np.float32]
    ) -> ir.Value:
        """The bias as the dialect has it, as float where it does not fit into 32 bits."""
        name = f"{node.name}.bias"
        with np.errstate(over="ignore", divide="ignore"):
            codes = np.rint(bias / scale.astype(np.float64))
        fits = np.abs(codes).max(initial=0) <= LARGEST_BIAS and scale.min() >= LEAST_SCALE
        whole = self._constant(name, bias.astype(np.float32))
        if self.dialect.bias != "int32" or not fits:
            return whole
        stored = self._constant(f"{name}.codes", codes.astype(np.int32))
        one = self._constant(f"{name}.scale", scale)
        two = self._constant(f"{name}.zero_point", np.zeros(scale.shape, np.int32))
        axis = 0 if scale.ndim else None
        return self._loaded(stored, one, two, f"{name}.rounded", whole, axis)

    def _loaded(
        self,
        codes: ir.Value,
        scale: ir.Value,
        zero: ir.Value,
        name: str,
        like: ir.Value,
        axis: int | None = None,
    ) -> ir.Value:
        attributes = {} if axis is None else {"axis": axis}
        node = self._node("DequantizeLinear", [codes, scale, zero], name, like, attributes)
        node.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
        return node.outputs[0]

    def _node(
        self,
        kind: str,
        inputs: list[ir.Value],
        name: str,
        like: ir.Value,
        attributes: dict[str, int] | None = None,
    ) -> ir.Node:
        node = ir.node(kind, inputs, attributes or {})
        node.name = node.outputs[0].name = self.names.fresh(name)
        node.outputs[0].shape = like.shape
        self.graph.append(node)
        return node

    def _constant(self, name: str, array: npt.NDArray[np.generic]) -> ir.Value:
        value = initializer(self.names.fresh(name), array)
        self.graph.register_initializer(value)
        return value


def _place_of_bias(node: ir.Node) -> tuple[ir.Node, int]:
    """The node that adds the bias of a layer, and the input that it is: of a product without a
    third input, the Add behind it, which ONNX Runtime makes one layer of both."""
    uses = tuple(node.outputs[0].uses())
    if node.op_type != "MatMul" or len(uses) != 1 or node.outputs[0].is_graph_output():
        return node, 2
    (reader, index), *_ = ((use.node, use.idx) for use in uses)
    return (reader, 1 - index) if reader.op_type == "Add" else (node, 2)


def _data(node: ir.Node) -> list[ir.Value]:
    """The float values that a node reads and that are no constants."""
    return [value for value in _read_floats(node) if value.const_value is None]


def _floats(node: ir.Node) -> int:
    return len(list(_read_floats(node)))


def _read_floats(node: ir.Node) -> Iterator[ir.Value]:
    for value in node.inputs:
        if value is not None and value.dtype == ir.DataType.FLOAT:
            yield value


def _end(node: ir.Node) -> ir.Value:
    """What a node computes, with the Relu or the Clip from 0 that alone reads it."""
    value = node.outputs[0]
    uses = tuple(value.uses())
    if len(uses) != 1 or value.is_graph_output() or len(node.outputs) > 1:
        return value
    reader = uses[0].node
    if reader.graph is not node.graph or reader.op_type not in BENDS_AT_0:
        return value
    return reader.outputs[0] if reader.op_type == "Relu" or _is_from_0(reader) else value


def _is_from_0(clip: ir.Node) -> bool:
    least = clip.inputs[1] if len(clip.inputs) > 1 else None
    array = None if least is None or least.const_value is None else least.const_value.numpy()
    return array is not None and float(array) == 0
