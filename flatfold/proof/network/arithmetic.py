"""A typed graph in its own arithmetic: every value in float32, and rounded to the type it has.

ONNX Runtime computes most of a float16 graph in float32 and rounds where it likes, and it has no
kernels for bfloat16. Here the graph itself is in float32, with weights that are the rounded ones,
and behind each node that rounds, bodies of If, Loop and Scan included, its output is cast to its
type and back: a graph that ONNX Runtime runs, whatever kernels it has. float32 is exact enough:
it has 13 more digits than float16. Sequences of half-precision tensors, functions of the model and
values of unknown type are not supported (BuildError).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from flatfold.errors import BuildError
from flatfold.proof.network.inputs import without_bfloat16
from flatfold.proof.network.judge import ROUNDOFF
from flatfold.proof.network.reference import Outputs, Reference
from flatfold.proof.network.rounding import EXACT, insert_behind, weights_of
from flatfold.proof.network.session import PlainSession, plain_session

HALVES = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
FLOATS = (*HALVES, ir.DataType.FLOAT, ir.DataType.DOUBLE)
WIDER = dict.fromkeys(HALVES, ir.DataType.FLOAT)
AS_FLOAT16 = {ir.DataType.BFLOAT16: ir.DataType.FLOAT16}
NAMING = ("to", "dtype", "output_dtype")  # attributes that name a type
LARGEST_HALF = 65504.0  # the largest number of float16
BFLOAT16_CASTS = 13  # the opset from which on Cast knows bfloat16
OLDEST = 9  # the opset from which on Where is there, and Mul and Greater extend their operands
HUGE = 2.0**100


class Rounding(Enum):
    """How values are rounded to a type."""

    NONE = "not at all: the graph computed exactly, up to float32"
    NEAREST = "to the nearest number of the type; too large ones become infinite"
    UNBOUNDED = "to the digits of the type, with the range of float32"
    MOVED = "as NEAREST, to a grid that is another one for each value and each run"
    REWEIGHTED = "as MOVED, the weights too"


@dataclass(frozen=True)
class Peak:
    """A value of type float16, and the largest finite number of it in unlimited range."""

    name: str
    largest: float

    @property
    def overflows(self) -> bool:
        """Whether it is nearer to the next number than to the largest of float16."""
        return self.largest >= LARGEST_HALF + 16


def half_types(model: ir.Model) -> set[ir.DataType]:
    """float16 and bfloat16, where a value of `model` may have that type."""
    types: set[ir.DataType | None] = set()
    for graph in model.graphs():
        types.update(value.dtype for value in (*graph.inputs, *graph.initializers.values()))
        for node in graph:
            types.update(value.dtype for value in node.outputs)
            types.update(_attribute_types(node))
    return {dtype for dtype in HALVES if dtype in types}


def _attribute_types(node: ir.Node) -> Iterator[ir.DataType]:
    """The types that attributes of `node` name or have."""
    for name, attribute in node.attributes.items():
        if attribute.type == ir.AttributeType.TENSOR:
            yield attribute.value.dtype
        elif attribute.type == ir.AttributeType.INT and name in NAMING:
            yield ir.DataType(attribute.as_int())


def open_session(model: ir.Model, which: str = "") -> Reference:
    """Runs `model`: in its own arithmetic if a value is float16 or bfloat16, else as it is.

    With a name of it, `which`, raises InputError where no session can be built; else BuildError.
    """
    if half_types(model):
        try:
            return TypedSession(model, which=which)
        except UnsupportedTypes:
            pass
    return plain_session(model, which) if which else PlainSession(model)


class UnsupportedTypes(BuildError):
    """A graph with types that cannot be computed in float32 and rounded."""


class TypedSession:
    """Runs a graph with every value rounded to its type; outputs in half precision are float32.

    narrow: a type that all floating-point values which depend on an input are rounded to, and the
    weights, where theirs is finer: that of an engine which computes in another type.
    Raises UnsupportedTypes, and BuildError where ONNX Runtime refuses the graph.
    """

    def __init__(
        self,
        model: ir.Model,
        rounding: Rounding = Rounding.NEAREST,
        narrow: ir.DataType | None = None,
        which: str = "",
    ) -> None:
        self._writer = _Writer(model, rounding, narrow)
        wide = self._writer.model
        self._session = plain_session(wide, which) if which else PlainSession(wide)
        if half_types(model) and rounding is Rounding.NEAREST:
            _require_valid(model)
        self._count = len(model.graph.outputs)
        self._rng = np.random.default_rng(0)

    def __call__(self, feeds: Mapping[str, npt.NDArray[Any]]) -> Outputs:
        """Outputs in order; the next draw of grids where they are moved."""
        return self._run(feeds)[: self._count]

    def peaks(self, feeds: Mapping[str, npt.NDArray[Any]]) -> tuple[Outputs, list[Peak]]:
        """Outputs, and the peak of each float16 value, for a session in unlimited range."""
        outputs = self._run(feeds)
        largest = map(float, outputs[self._count :])
        return outputs[: self._count], list(map(Peak, self._writer.peaks, largest))

    def _run(self, feeds: Mapping[str, npt.NDArray[Any]]) -> Outputs:
        wide: dict[str, Any] = {
            name: array.astype(np.float32) if array.dtype.name == "float16" else array
            for name, array in without_bfloat16(feeds).items()
        }
        for name in self._writer.grids:
            wide[name] = np.array(2.0 ** -self._rng.random(), np.float32)
        return self._session(wide)


def _require_valid(model: ir.Model) -> None:
    """Raise BuildError where types or shapes of `model` do not fit; missing kernels do not count.

    bfloat16 is checked as float16: layers have it in the standard from opset 22 on only, and
    exporters write it into older graphs.
    """
    copy = model.clone()
    for graph in copy.graphs():
        retype(graph, AS_FLOAT16)
    try:
        PlainSession(copy)
    except BuildError as why:
        if "NOT_IMPLEMENTED" not in why.cause:
            raise


class _Writer:
    """Writes a typed graph in float32: `model`, with these inputs for grids and these peaks."""

    def __init__(self, model: ir.Model, rounding: Rounding, narrow: ir.DataType | None) -> None:
        from flatfold.frontend.canonicalization.graph_shapes import evaluate_shapes

        self.model, self.rounding, self.narrow = model.clone(), rounding, narrow
        self.grids: list[str] = []
        self.peaks: list[str] = []
        self._constants: dict[tuple[float, ir.DataType], ir.Value] = {}
        graph = self.model.graph
        self.version = self.model.opset_imports.get("", 0)
        if self.model.functions or self.version < OLDEST:
            raise UnsupportedTypes("the graph calls functions, or is of an old opset")
        evaluate_shapes(graph, dict(self.model.opset_imports))  # a file need not say all types
        if any(_is_untyped(value) for node in graph.all_nodes() for value in node.outputs):
            _infer_types(self.model)
        rounded = [] if rounding is Rounding.NONE else list(self._rounded(graph, set()))
        if rounding is Rounding.REWEIGHTED:
            rounded += [(v, t) for v in weights_of(graph) if (t := _constant_type(v)) in HALVES]
        if narrow is not None and rounding is not Rounding.NONE:
            for value in list(weights_of(graph)):
                _narrow_weight(value, narrow)
        for one in self.model.graphs():
            retype(one, WIDER)
        for value, dtype in rounded:
            self._round(value, dtype)

    def _rounded(
        self, graph: ir.Graph, varying: set[ir.Value]
    ) -> Iterator[tuple[ir.Value, ir.DataType]]:
        """Values that are rounded, and to which type; `varying` are those that depend on inputs."""
        inputs = [value for value in graph.inputs if not value.is_initializer()]
        varying.update(inputs)
        if self.narrow is not None:
            yield from ((v, self.narrow) for v in inputs if _is_finer(v.dtype, self.narrow))
        for node in graph:
            bodies = [a.as_graph() for a in node.attributes.values() if _is_graph(a)]
            for body in bodies:
                yield from self._rounded(body, varying)
            read = (*node.inputs, *(value for body in bodies for value in body.outputs))
            varies = any(value in varying for value in read)
            if varies:
                varying.update(node.outputs)
            if bodies or (node.op_type in EXACT and node.op_type != "Cast"):
                continue
            for value in node.outputs:
                dtype = self._type_of(value, varies and node.op_type != "Cast")
                if dtype is not None:
                    yield value, dtype

    def _type_of(self, value: ir.Value, varies: bool) -> ir.DataType | None:
        """The type that `value` is rounded to: the coarser of its own and the narrow one, if any.

        Raises UnsupportedTypes where its own is not known.
        """
        own = value.dtype
        if _is_untyped(value):
            raise UnsupportedTypes(f"the type of {value.name!r} is not known")
        if self.narrow is not None and varies and _is_finer(own, self.narrow):
            return self.narrow
        return own if own in HALVES else None

    def _round(self, value: ir.Value, dtype: ir.DataType) -> None:
        """Let all readers of `value` read it rounded to `dtype`."""
        uses, wide = tuple(value.uses()), value.dtype or ir.DataType.FLOAT
        by_cast = self.rounding is not Rounding.UNBOUNDED and (
            dtype == ir.DataType.FLOAT16 or self.version >= BFLOAT16_CASTS
        )
        nodes = self._cast(value, dtype, wide) if by_cast else self._split(value, dtype, wide)
        rounded = nodes[-1].outputs[0]
        for node, index in uses:
            node.replace_input_with(index, rounded)
        graph = _graph_of(value, self.model.graph)
        insert_behind(graph, value, nodes)
        for place, output in enumerate(graph.outputs):
            if output is value:
                graph.outputs[place] = rounded
                rounded.shape = value.shape
                value.name, rounded.name = f"{value.name}:wide", value.name
        if self.rounding is Rounding.UNBOUNDED and dtype == ir.DataType.FLOAT16:
            self._watch(value, graph)

    def _cast(self, value: ir.Value, dtype: ir.DataType, wide: ir.DataType) -> list[ir.Node]:
        """`value` cast and back; where grids are moved, times a factor before, over it behind."""
        if self.rounding not in (Rounding.MOVED, Rounding.REWEIGHTED):
            narrow = _typed("Cast", [value], dtype, {"to": int(dtype)})
            return [narrow, _typed("Cast", narrow.outputs, wide, {"to": int(wide)})]
        factor = self._grid(wide)
        product = _typed("Mul", [value, factor], wide)
        narrow = _typed("Cast", product.outputs, dtype, {"to": int(dtype)})
        back = _typed("Cast", narrow.outputs, wide, {"to": int(wide)})
        return [product, narrow, back, _typed("Div", [back.outputs[0], factor], wide)]

    def _split(self, value: ir.Value, dtype: ir.DataType, wide: ir.DataType) -> list[ir.Node]:
        """`value` rounded to the digits of `dtype`: c x - (c x - x), by Veltkamp and Dekker."""
        factor = self._constant(ROUNDOFF[dtype.name] / ROUNDOFF[wide.name] + 1, wide)
        product = _typed("Mul", [value, factor], wide)
        rest = _typed("Sub", [product.outputs[0], value], wide)
        digits = _typed("Sub", [product.outputs[0], rest.outputs[0]], wide)
        tests = self._huge(value, wide)
        choice = _typed("Where", [tests[-1].outputs[0], value, digits.outputs[0]], wide)
        return [product, rest, digits, *tests, choice]

    def _huge(self, value: ir.Value, wide: ir.DataType) -> list[ir.Node]:
        """The sizes of `value`, and which of them are infinite, or so large that they stand for it.

        Such as what hides a score from a Softmax.
        """
        size = _typed("Abs", [value], wide)
        limit = self._constant(HUGE, wide)
        return [size, _typed("Greater", [size.outputs[0], limit], ir.DataType.BOOL)]

    def _grid(self, wide: ir.DataType) -> ir.Value:
        """A new input of the graph, between 1/2 and 1, so that nothing overflows by it."""
        given = ir.Value(name=f"flatfold.grid{len(self.grids)}", shape=ir.Shape([]))
        given.type = ir.TensorType(ir.DataType.FLOAT)
        self.model.graph.inputs.append(given)
        self.grids.append(given.name or "")
        if wide == ir.DataType.FLOAT:
            return given
        cast = _typed("Cast", [given], wide, {"to": int(wide)})
        self.model.graph.insert_before(self.model.graph[0], [cast])
        return cast.outputs[0]

    def _constant(self, number: float, wide: ir.DataType) -> ir.Value:
        if (number, wide) not in self._constants:
            name = f"flatfold.constant{len(self._constants)}"
            value = ir.Value(name=name, shape=ir.Shape([]), type=ir.TensorType(wide))
            value.const_value = ir.Tensor(np.array(number, wide.numpy()), name=name)
            self.model.graph.register_initializer(value)
            self._constants[number, wide] = value
        return self._constants[number, wide]

    def _watch(self, value: ir.Value, graph: ir.Graph) -> None:
        """Add an output for the largest finite number of `value`. Not for values in a body."""
        if graph is not self.model.graph:
            return
        wide = value.dtype or ir.DataType.FLOAT
        size, huge = self._huge(value, wide)
        zero = self._constant(0.0, wide)
        finite = _typed("Where", [huge.outputs[0], zero, size.outputs[0]], wide)
        peak = _typed("ReduceMax", finite.outputs, wide, {"keepdims": 0})
        self.peaks.append((value.name or "").removesuffix(":wide"))
        peak.outputs[0].name = f"flatfold.peak{len(self.peaks)}"
        peak.outputs[0].shape = ir.Shape([])
        graph.extend([size, huge, finite, peak])
        graph.outputs.append(peak.outputs[0])


def _is_untyped(value: ir.Value) -> bool:
    """Whether a value that is read has no type. Constants have that of their tensor."""
    node, read = value.producer(), bool(value.uses()) or value.is_graph_output()
    return value.dtype is None and read and node is not None and node.op_type != "Constant"


def _infer_types(model: ir.Model) -> None:
    """Give values the types that ONNX infers, which knows bfloat16 in layers from opset 22 on."""
    types = half_types(model)
    if len(types) > 1:
        return
    copy = model.clone()
    for graph in copy.graphs():
        retype(graph, AS_FLOAT16)
    ShapeInferencePass()(copy)
    for node, other in zip(model.graph.all_nodes(), copy.graph.all_nodes(), strict=True):
        for value, known in zip(node.outputs, other.outputs, strict=True):
            if value.dtype is None and known.dtype is not None:
                half = known.dtype == ir.DataType.FLOAT16
                value.type = ir.TensorType(*types) if half and types else known.type


def _typed(
    kind: str,
    inputs: Sequence[ir.Value],
    dtype: ir.DataType,
    attributes: Mapping[str, int] | None = None,
) -> ir.Node:
    """A node with one output of this type."""
    node = ir.node(kind, inputs, dict(attributes or {}))
    node.outputs[0].type = ir.TensorType(dtype)
    return node


def _is_finer(dtype: ir.DataType | None, than: ir.DataType) -> bool:
    """Whether `dtype` is a floating-point type with more digits."""
    return dtype in FLOATS and ROUNDOFF[dtype.name] < ROUNDOFF[than.name]


def _is_graph(attribute: ir.Attr) -> bool:
    return attribute.type == ir.AttributeType.GRAPH


def _graph_of(value: ir.Value, main: ir.Graph) -> ir.Graph:
    """The graph that computes `value`, or has it as an input."""
    producer = value.producer()
    graph = producer.graph if producer is not None else value.graph
    return graph if isinstance(graph, ir.Graph) else main


def _constant_type(value: ir.Value) -> ir.DataType | None:
    tensor = ir.convenience.get_const_tensor(value)
    return tensor.dtype if tensor is not None else None


def _narrow_weight(value: ir.Value, narrow: ir.DataType) -> None:
    """Round a constant to the digits and the range of `narrow`, and keep its type."""
    tensor = ir.convenience.get_const_tensor(value)
    if tensor is None or not _is_finer(tensor.dtype, narrow):
        return
    array = tensor.numpy()
    with np.errstate(over="ignore"):
        rounded = ir.Tensor(array.astype(narrow.numpy()).astype(array.dtype), name=value.name)
    node = value.producer()
    if node is None:
        value.const_value = rounded
    else:
        node.attributes.clear()
        node.attributes["value"] = ir.AttrTensor("value", rounded)


def retype(graph: ir.Graph, types: Mapping[ir.DataType, ir.DataType]) -> None:
    """Turn every value and constant of `graph` into another type, with its number, as `types` say.

    Raises UnsupportedTypes for sequences and optional values.
    """
    for node in graph:
        for name, attribute in list(node.attributes.items()):
            _retype_attribute(node, name, attribute, types)
        for value in node.outputs:
            _retype_value(value, types)
    for value in (*graph.inputs, *graph.initializers.values()):
        _retype_value(value, types)


def _retype_value(value: ir.Value, types: Mapping[ir.DataType, ir.DataType]) -> None:
    tensor = value.const_value
    if tensor is not None and tensor.dtype in types:
        value.const_value = _retyped(tensor, types)
    if value.dtype is None or value.dtype not in types:
        return
    if not isinstance(value.type, ir.TensorType):
        raise UnsupportedTypes(f"{value.name} is no tensor, and of half precision")
    value.type = ir.TensorType(types[value.dtype])


def _retype_attribute(
    node: ir.Node, name: str, attribute: ir.Attr, types: Mapping[ir.DataType, ir.DataType]
) -> None:
    if attribute.type == ir.AttributeType.TENSOR and attribute.value.dtype in types:
        node.attributes[name] = ir.AttrTensor(name, _retyped(attribute.value, types))
    elif attribute.type == ir.AttributeType.INT and name in NAMING:
        dtype = ir.DataType(attribute.as_int())
        node.attributes[name] = ir.AttrInt64(name, int(types.get(dtype, dtype)))


def _retyped(
    tensor: ir.TensorProtocol, types: Mapping[ir.DataType, ir.DataType]
) -> ir.TensorProtocol:
    array = tensor.numpy().astype(np.float32)
    with np.errstate(over="ignore"):
        return ir.Tensor(array.astype(types[tensor.dtype].numpy()), name=tensor.name)
