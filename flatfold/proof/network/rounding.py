"""A graph that rounds in another way: how far rounding alone may move its outputs.

The error of one run is one draw. Another order of sums, or weights that are rounded elsewhere, give
another draw of the same kind, and by luck the first may have been much smaller. So every weight and
every value that a node rounds is multiplied by a random number within two roundings of 1, in each
run by others: Monte Carlo arithmetic (Parker, Pierce and Eggert 2000). What such runs differ by is
what rounding explains, however much the graph amplifies it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import onnx_ir as ir

from flatfold.proof.network.judge import ROUNDOFF

UNITS = 2.0  # roundings by which a number is moved at most
OLDEST = 7  # the opset from which on Mul extends its operands

# Operators whose result is one of their operands' numbers, which are not rounded again.
_EXACT = """
Abs Cast Ceil Clip Concat DepthToSpace Dropout Expand Flatten Floor Gather GatherElements
GatherND GlobalMaxPool Identity Max MaxPool Min Neg Pad ReduceMax ReduceMin Relu Reshape Round
ScatterElements ScatterND Sign Slice SpaceToDepth Split Squeeze Tile TopK Transpose Unsqueeze
Where
"""
EXACT = frozenset(_EXACT.split())

# Operators whose constant operands are weights; sizes, scales and limits are left as they are.
_WEIGHTED = """
Add BatchNormalization Concat Conv ConvTranspose Div Einsum GRU Gemm InstanceNormalization LSTM
LayerNormalization MatMul Mul PRelu RNN Reshape Slice Split Squeeze Sub Sum Transpose Unsqueeze
"""
WEIGHTED = frozenset(_WEIGHTED.split())


def rounded_otherwise(model: ir.Model, coarser: float = 1.0) -> ir.Model:
    """A copy of `model` in which roundings, `coarser` times as large as its own, are drawn anew."""
    from flatfold.frontend.canonicalization.graph_shapes import evaluate_shapes

    copy = model.clone()
    graph = copy.graph
    evaluate_shapes(graph, dict(copy.opset_imports))  # a file need not say the types of its values
    if copy.opset_imports.get("", 0) >= OLDEST:
        for seed, value in enumerate([*weights_of(graph), *_rounded_values(graph)]):
            _multiply(graph, value, seed, coarser)
    return copy


def weights_of(graph: ir.Graph) -> Iterator[ir.Value]:
    """Constants of several numbers, not all of them whole, that only layers and sums read."""
    constants = [node.outputs[0] for node in graph if node.op_type == "Constant"]
    for value in [*graph.initializers.values(), *constants]:
        tensor = ir.convenience.get_const_tensor(value)
        if tensor is None or tensor.dtype.name not in ROUNDOFF or tensor.size < 2:
            continue
        if not value.is_graph_input() and all(n.op_type in WEIGHTED for n in value.consumers()):
            array = tensor.numpy().astype(np.float64)
            if not np.array_equal(array, np.round(array)):
                yield value


def _rounded_values(graph: ir.Graph) -> Iterator[ir.Value]:
    """Float inputs, and the values that nodes compute from them and round."""
    varying = {v for v in graph.inputs if _is_float(v) and not v.is_initializer()}
    yield from [v for v in graph.inputs if v in varying]
    for node in list(graph):
        if not any(value in varying for value in node.inputs) and not has_graph(node):
            continue
        outputs = [value for value in node.outputs if _is_float(value)]
        varying.update(outputs)
        if node.op_type not in EXACT:
            yield from outputs


def has_graph(node: ir.Node) -> bool:
    """Whether the node has a body, as an If or a Loop does."""
    return any(a.type == ir.AttributeType.GRAPH for a in node.attributes.values())


def _is_float(value: ir.Value) -> bool:
    return value.dtype is not None and value.dtype.name in ROUNDOFF


def _multiply(graph: ir.Graph, value: ir.Value, seed: int, coarser: float) -> None:
    """Let all readers of `value` read it times random numbers close to 1."""
    uses = tuple(value.uses())
    dtype = _dtype(value)
    reach = min(UNITS * coarser * ROUNDOFF[dtype.name], 0.5)
    drawn_as = dtype if dtype == ir.DataType.DOUBLE else ir.DataType.FLOAT
    options = {"low": 1.0 - reach, "high": 1.0 + reach, "seed": float(seed + 1)}
    factors = ir.node("RandomUniformLike", [value], {**options, "dtype": int(drawn_as)})
    cast = ir.node("Cast", [factors.outputs[0]], {"to": int(dtype)})
    product = ir.node("Mul", [value, cast.outputs[0]])
    product.outputs[0].type = ir.TensorType(dtype)
    insert_behind(graph, value, [factors, cast, product])
    for node, index in uses:
        node.replace_input_with(index, product.outputs[0])


def _dtype(value: ir.Value) -> ir.DataType:
    tensor = ir.convenience.get_const_tensor(value)
    dtype = tensor.dtype if tensor is not None else value.dtype
    return dtype if dtype is not None else ir.DataType.FLOAT


def insert_behind(graph: ir.Graph, value: ir.Value, nodes: Sequence[ir.Node]) -> None:
    """Put `nodes` behind the one that computes `value`, or first in `graph` if none does."""
    producer = value.producer()
    if producer is not None:
        graph.insert_after(producer, nodes)
    elif len(graph):
        graph.insert_before(graph[0], nodes)
    else:
        graph.extend(nodes)
