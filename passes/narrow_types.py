"""A float32 graph in half the bits: float16 or bfloat16, with a Cast where two types meet.

TensorRT 11 has no precision flags, and OpenVINO follows the types of a graph too, so the types say
how an engine computes. This is no rewrite: the function changes by what the roundings make of it.
Which nodes keep float32 is decided by the caller, except where an operator has no other type.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnx_ir as ir

from flatfold.passes.lowering.replacement import Names, remove_unused_initializers
from flatfold.passes.lowering.rounding import LARGEST, exact_of, nearest
from flatfold.passes.remark import HINTS, Remark

WIDE = ir.DataType.FLOAT
NARROW = {"bf16": ir.DataType.BFLOAT16, "fp16": ir.DataType.FLOAT16}
OPSET = {ir.DataType.BFLOAT16: 22, ir.DataType.FLOAT16: 0}  # from which on Conv and pools take it
NAME = "narrow-types"

# The scale of these decides which codes there are, and another one would change them.
QUANTISING = ("DequantizeLinear", "DynamicQuantizeLinear", "QuantizeLinear")
# Nodes that compute nothing keep the type of what they read.
_MOVING = """
Concat DepthToSpace Dropout Expand Flatten Gather GatherElements GatherND Identity MaxPool
Reshape Slice SpaceToDepth Split Squeeze Tile Transpose Unsqueeze
"""
MOVING = frozenset(_MOVING.split())


@dataclass(frozen=True)
class Kept:
    """Why a node keeps float32."""

    code: str
    reason: str


@dataclass
class Narrowed:
    """What became of the nodes of a graph: how many compute in half the bits, and what does not."""

    narrow: int = 0
    total: int = 0
    casts: int = 0
    kept: dict[str, Kept] = field(default_factory=dict)  # by name of the node

    def remarks(self) -> list[Remark]:
        """One for each node that keeps float32."""
        return [
            Remark(NAME, name, False, why.code, why.reason, hint=HINTS[why.code])
            for name, why in self.kept.items()
        ]


def narrow_types(
    model: ir.Model,
    dtype: ir.DataType,
    kept: Mapping[ir.Node, Kept] | None = None,
    *,
    narrow_io: bool = False,
) -> Narrowed:
    """Give the float32 values of `model` the type `dtype`, in place; what became of its nodes.

    The nodes of `kept` keep float32, as do those whose operator does not take `dtype`, that
    quantise, or whose constants are beyond the largest number of `dtype`. Constants are rounded
    to nearest, once: from the float64 that they were folded in, where that was kept. None is
    clipped. Inputs and outputs of the model keep their type unless `narrow_io` is set. The opset
    must be that of `OPSET` or later, see `raise_opset`.
    """
    work = _Narrowing(model, dtype, dict(kept or {}), narrow_io)
    work.choose()
    work.write()
    return work.result


def raise_opset(model: ir.Model, dtype: ir.DataType) -> None:
    """Convert `model` in place to an opset whose operators take `dtype`, if they do not."""
    if model.opset_imports.get("", OPSET[dtype]) >= OPSET[dtype]:
        return
    from onnxscript import version_converter

    version_converter.convert_version(model, OPSET[dtype])


@functools.cache
def _schema(operator: str, domain: str, opset: int) -> onnx.defs.OpSchema | None:
    try:
        return onnx.defs.get_schema(operator, max_inclusive_version=opset, domain=domain)
    except onnx.defs.SchemaError:
        return None


@dataclass(frozen=True)
class Typed:
    """Which inputs and outputs of a node have a type that may be another one."""

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def typed_as(node: ir.Node, opset: int, dtype: ir.DataType) -> Typed | Kept:
    """The float32 inputs and outputs of `node` that can be `dtype` together, or why they cannot.

    An output has the type of an input if both have one type parameter in the operator's schema.
    """
    schema = _schema(node.op_type, node.domain, opset)
    if schema is None:
        return Kept("DTYPE", f"the types of {node.domain}.{node.op_type} are not known")
    allowed = {one.type_param_str: one.allowed_type_strs for one in schema.type_constraints}
    wanted = "tensor(bfloat16)" if dtype == ir.DataType.BFLOAT16 else "tensor(float16)"
    inputs = {
        index: _parameter(schema.inputs, index)
        for index, value in enumerate(node.inputs)
        if value is not None and value.dtype == WIDE
    }
    outputs = {
        index: _parameter(schema.outputs, index)
        for index, value in enumerate(node.outputs)
        if value.dtype == WIDE
    }
    free = {name for name in inputs.values() if name in allowed}
    taking = {name for name in free if wanted in allowed[name]}
    data = {inputs.get(0, ""), *outputs.values()}  # what the node is there for
    if fixed := sorted((free - taking) & data):
        return Kept("DTYPE", f"{node.op_type} of opset {opset} has no {dtype.name} for {fixed[0]}")
    return Typed(*(tuple(n for n, t in ends.items() if t in taking) for ends in (inputs, outputs)))


def _parameter(parameters: Collection[onnx.defs.OpSchema.FormalParameter], index: int) -> str:
    """The type of an operand in the schema, whose last operand may stand for several."""
    listed = list(parameters)
    return str(listed[min(index, len(listed) - 1)].type_str) if listed else ""


class _Narrowing:
    """One graph on its way to another type."""

    def __init__(
        self, model: ir.Model, dtype: ir.DataType, kept: dict[ir.Node, Kept], narrow_io: bool
    ) -> None:
        self.model, self.graph, self.dtype = model, model.graph, dtype
        self.opset, self.narrow_io = model.opset_imports.get("", 1), narrow_io
        self.names = Names.of(model)
        self.kept = kept
        self.typed: dict[ir.Node, Typed] = {}  # of the nodes that take the new type
        self.narrow: set[ir.Value] = set()  # computed values and inputs that take it
        self.others: dict[ir.Value, ir.Value] = {}  # the same value in the other type
        self.result = Narrowed(total=self.graph.num_nodes())

    def choose(self) -> None:
        """Find the nodes that take the new type, and the values that they write in it."""
        if self.narrow_io:
            self.narrow |= {v for v in self.graph.inputs if v.dtype == WIDE}
        for node in self.graph:
            typed = self._typed(node)
            if isinstance(typed, Kept):
                self.kept.setdefault(node, typed)
            elif typed.inputs:
                self.typed[node] = typed
                self.narrow |= {node.outputs[n] for n in typed.outputs}

    def _typed(self, node: ir.Node) -> Typed | Kept:
        if node in self.kept:
            return self.kept[node]
        if node.op_type in QUANTISING:
            return Kept("CODES", f"another scale of {node.op_type} has other codes")
        if any(
            a.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
            for a in node.attributes.values()
        ):
            return Kept("CONTROL-FLOW", f"the branches of {node.op_type} keep their types")
        ends = [v for v in (*node.inputs, *node.outputs) if v is not None and v.name]
        if unknown := [v for v in ends if not isinstance(v.type, ir.TensorType)]:
            return Kept("DTYPE", f"{unknown[0].name} is no tensor of a known type")
        typed = typed_as(node, self.opset, self.dtype)
        if isinstance(typed, Kept):
            return typed
        if node.op_type in MOVING and not self._reads_narrow(node, typed):
            return Typed((), ())
        return self._beyond(node, typed) or typed

    def _reads_narrow(self, node: ir.Node, typed: Typed) -> bool:
        """Whether a node that moves values around reads some that have the new type."""
        values = [node.inputs[n] for n in typed.inputs]
        computed = [v for v in values if v is not None and v.const_value is None]
        return any(v in self.narrow or v.producer() is None for v in computed)

    def _beyond(self, node: ir.Node, typed: Typed) -> Kept | None:
        """Why the constants of a node do not fit into the new type, if they do not."""
        for index in typed.inputs:
            array = _constant(node.inputs[index])
            if array is None or not array.size:
                continue
            largest = float(np.abs(array).max())
            if LARGEST[self.dtype] < largest < np.inf:
                limit = f"{LARGEST[self.dtype]:.3g}, the largest {self.dtype.name}"
                name = node.inputs[index].name  # type: ignore[union-attr]
                return Kept("RANGE", f"the constant {name} has {largest:.3g}, above {limit}")
        return None

    def write(self) -> None:
        """Give nodes, values and constants their types, and add the Casts."""
        for node in list(self.graph):
            typed = self.typed.get(node)
            for index, value in enumerate(node.inputs):
                if value is None or value.dtype != WIDE:
                    continue
                takes = typed is not None and index in typed.inputs
                if takes != (value in self.narrow):
                    node.replace_input_with(index, self._other(value))
        self._restore_inner_reads()
        self._close_outputs()
        for value in self.narrow:
            value.type = ir.TensorType(self.dtype)  # clones share the old one
        self.graph.sort()
        remove_unused_initializers(self.graph)
        self.result.narrow = sum(map(self._is_narrow, self.graph))
        self.result.kept = {node.name or node.op_type: why for node, why in self.kept.items()}

    def _is_narrow(self, node: ir.Node) -> bool:
        ends = (*node.inputs, *node.outputs)
        return node.op_type != "Cast" and any(v is not None and v.dtype == self.dtype for v in ends)

    def _restore_inner_reads(self) -> None:
        """Bodies of Ifs and loops read float32, as they did."""
        for value in list(self.narrow):
            for node, index in tuple(value.uses()):
                if node.graph is not None and node.graph is not self.graph:
                    node.replace_input_with(index, self._other(value))

    def _close_outputs(self) -> None:
        """Outputs of the model have the name that they had, and the type that is asked for."""
        for value in dict.fromkeys(self.graph.outputs):
            is_float = value.dtype == WIDE and _constant(value) is None
            if not is_float or (value in self.narrow) == self.narrow_io:
                continue
            other = self._other(value)
            value.name, other.name = self.names.fresh(f"{value.name}.inner"), value.name
            for index, output in enumerate(self.graph.outputs):
                if output is value:
                    self.graph.outputs[index] = other

    def _other(self, value: ir.Value) -> ir.Value:
        """The value in the type that it does not have: a rounded constant, or a Cast of it."""
        if value in self.others:
            return self.others[value]
        array = _constant(value)
        if array is not None:
            other = _rounded(value, array, self.dtype, self.names)
            self.graph.initializers.add(other)
        else:
            to = WIDE if value in self.narrow else self.dtype
            cast = ir.node("Cast", [value], {"to": int(to)})
            other = cast.outputs[0]
            other.name = cast.name = self.names.fresh(f"{value.name}.{to.name.lower()}")
            other.type, other.shape = ir.TensorType(to), value.shape
            self.graph.append(cast)
            self.result.casts += 1
        self.others[value] = other
        return other


def _constant(value: ir.Value | None) -> np.ndarray | None:
    """The array of a constant; None for what is computed or may be set by a caller."""
    if value is None or value.const_value is None or value.is_graph_input():
        return None
    return np.asarray(value.const_value.numpy())


def _rounded(value: ir.Value, array: np.ndarray, dtype: ir.DataType, names: Names) -> ir.Value:
    exact = exact_of(value)
    tensor = ir.Tensor(nearest(array if exact is None else exact, dtype), dtype=dtype)
    name = names.fresh(f"{value.name}.{dtype.name.lower()}")
    tensor.name = name
    return ir.Value(name=name, shape=value.shape, type=ir.TensorType(dtype), const_value=tensor)
