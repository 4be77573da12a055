"""A graph while it is drawn: every node is run by ONNX Runtime as soon as it is added.

So each value has an array, the next operator is drawn for the shape that its inputs really have,
and what ONNX Runtime refuses never becomes part of the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

Array = npt.NDArray[Any]
IR_VERSION = 10
MOST_ELEMENTS = 20_000  # of one value, or the comparison in double takes long
LARGEST = 1e6  # values beyond this make every comparison one of rounding


class Rejected(Exception):
    """ONNX Runtime refuses the node, or its value is of no use."""


class Sketch:
    """Nodes, constants and the arrays of all values so far."""

    def __init__(self, rng: np.random.Generator, opset: int) -> None:
        self.rng, self.opset = rng, opset
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, Array] = {}
        self.inputs: dict[str, Array] = {}
        self.values: dict[str, Array] = {}  # inputs and what nodes compute, in order
        self.functions: list[onnx.FunctionProto] = []
        self._count = 0

    # draws

    def chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)

    def one(self, items: Sequence[Any]) -> Any:
        return items[int(self.rng.integers(len(items)))]

    def between(self, low: int, high: int) -> int:
        """An integer from `low` to `high`, both among them."""
        return int(self.rng.integers(low, high + 1))

    def normal(self, *shape: int, scale: float = 1.0) -> Array:
        array: Array = self.rng.normal(0, scale, shape).astype(np.float32)
        return array

    def permutation(self, count: int) -> list[int]:
        return [int(i) for i in self.rng.permutation(count)]

    # names

    def name(self, stem: str) -> str:
        self._count += 1
        return f"{stem}{self._count}"

    def array(self, name: str) -> Array:
        return self.values[name] if name in self.values else self.constants[name]

    def shape(self, name: str) -> tuple[int, ...]:
        return self.array(name).shape

    # parts of the graph

    def input(self, array: Array) -> str:
        name = self.name("x")
        self.inputs[name] = self.values[name] = array
        return name

    def const(self, array: Any) -> str:
        """A constant: an initializer, or now and then the output of a Constant node."""
        name, array = self.name("c"), np.asarray(array)
        if self.chance(0.1):
            self.nodes.append(
                helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array))
            )
        self.constants[name] = array
        return name

    def ints(self, *numbers: int) -> str:
        return self.const(np.array(numbers, np.int64))

    def add(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """The first output of a new node. Raises Rejected where ONNX Runtime does not run it."""
        return self.add_many(kind, inputs, 1, **attributes)[0]

    def add_many(
        self, kind: str, inputs: Sequence[str], outputs: int, **attributes: Any
    ) -> list[str]:
        names = [self.name(kind.lower()) for _ in range(outputs)]
        node = helper.make_node(kind, list(inputs), names, name=self.name("n"), **attributes)
        arrays = self.run([node], names)
        for array in arrays:
            _require_useful(array)
        self.nodes.append(node)
        self.values.update(zip(names, arrays, strict=True))
        return names

    def attempt(self, draw: Callable[[Sketch, str], str], x: str) -> str | None:
        """What `draw` makes of x; None, and no trace of it, where that is rejected."""
        nodes, values = len(self.nodes), list(self.values)
        functions = len(self.functions)
        try:
            return draw(self, x)
        except Rejected:
            del self.nodes[nodes:]
            del self.functions[functions:]
            self.values = {name: self.values[name] for name in values}
            return None

    def run(self, nodes: Sequence[onnx.NodeProto], outputs: Sequence[str]) -> list[Array]:
        """The values of a few nodes by ONNX Runtime, on the arrays of what they read."""
        made = {name for node in nodes for name in node.output}
        read = sorted(set().union(*map(names_read, nodes)) - made)
        feeds = {name: self.array(name) for name in read if name in self.values}
        constants = {name: self.constants[name] for name in read if name in self.constants}
        model = self.model(nodes, feeds, constants, outputs)
        return run(model, feeds)

    def model(
        self,
        nodes: Sequence[onnx.NodeProto],
        inputs: dict[str, Array],
        constants: dict[str, Array],
        outputs: Sequence[str],
    ) -> onnx.ModelProto:
        computed = {name for node in nodes if node.op_type == "Constant" for name in node.output}
        graph = helper.make_graph(
            list(nodes),
            "drawn",
            [typed(name, array, array.shape) for name, array in inputs.items()],
            [onnx.ValueInfoProto(name=name) for name in outputs],
            [
                numpy_helper.from_array(np.asarray(array, order="C"), name)
                for name, array in constants.items()
                if name not in computed
            ],
        )
        opsets = [helper.make_opsetid("", self.opset)]
        if self.functions:
            opsets.append(helper.make_opsetid("drawn", 1))
        return helper.make_model(
            graph, opset_imports=opsets, ir_version=IR_VERSION, functions=self.functions
        )


def typed(name: str, array: Array, shape: Sequence[Any] | None) -> onnx.ValueInfoProto:
    kind = helper.np_dtype_to_tensor_dtype(array.dtype)
    return helper.make_tensor_value_info(name, kind, shape)


def names_read(node: onnx.NodeProto) -> set[str]:
    """The values that a node reads, those that its subgraphs read from outside among them."""
    names = set(node.input) - {""}
    for attribute in node.attribute:
        if attribute.HasField("g"):
            body = attribute.g
            inner = {name for n in body.node for name in n.output}
            inner |= {v.name for v in body.input} | {t.name for t in body.initializer}
            read = set().union(*map(names_read, body.node)) if body.node else set()
            names |= (read | {v.name for v in body.output}) - inner
    return names


def run(model: onnx.ModelProto, feeds: dict[str, Array]) -> list[Array]:
    """The outputs by ONNX Runtime, not optimised. Raises Rejected."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.enable_mem_pattern = False
    try:
        session = ort.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        wanted = {value.name for value in session.get_inputs()}
        return session.run(None, {name: feeds[name] for name in feeds if name in wanted})
    except Exception as why:
        raise Rejected(str(why)[:300]) from None


def _require_useful(array: Any) -> None:
    if not isinstance(array, np.ndarray) or not 0 < array.size <= MOST_ELEMENTS:
        raise Rejected("empty, too large, or no tensor")
    if array.dtype.kind == "f":
        with np.errstate(invalid="ignore"):
            if not (np.abs(array) < LARGEST).all():
                raise Rejected("not finite, or very large")


FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
