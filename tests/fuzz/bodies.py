"""Operators with a body: If, Loop, Scan, and functions of the model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import helper

from tests.fuzz.elementwise import activation, arithmetic, relu
from tests.fuzz.layers import batch_norm, conv, linear, pointwise
from tests.fuzz.movement import (
    flatten,
    reshape,
    reshape_by_shape,
    squeeze,
    transpose,
    unsqueeze,
)
from tests.fuzz.sketch import FLOAT, Rejected, Sketch

Part = Callable[[Sketch, str], str]
PARTS: list[Part] = [activation, arithmetic, relu, batch_norm, conv, linear, pointwise]

VIEWS: list[Part] = [flatten, reshape, reshape_by_shape, squeeze, transpose, unsqueeze]


def chain(s: Sketch, x: str, most: int = 3) -> str:
    for _ in range(s.between(1, most)):
        x = s.one(PARTS)(s, x)
    return x


def _taken_out(s: Sketch, x: str, draw: Part = chain) -> tuple[list[onnx.NodeProto], str]:
    """The nodes that `draw` adds behind x, taken out of the graph again, and their result."""
    count, known = len(s.nodes), list(s.values)
    y = draw(s, x)
    nodes = s.nodes[count:]
    del s.nodes[count:]
    s.values = {name: s.values[name] for name in known} | {y: s.values[y]}
    if not nodes or y == x:
        raise Rejected("nothing drawn")
    return nodes, y


def _body(nodes: list[onnx.NodeProto], output: str) -> onnx.GraphProto:
    value = helper.make_tensor_value_info(output, FLOAT, None)
    return helper.make_graph(nodes, f"body_{output}", [], [value])


def viewed(s: Sketch, x: str) -> str:
    """A chain among views of what goes in and comes out: another number of axes, now and then."""
    for _ in range(s.between(0, 2)):
        x = s.one(VIEWS)(s, x)
    x = chain(s, x, 2)
    for _ in range(s.between(0, 2)):
        x = s.one(VIEWS)(s, x)
    return x


def branches(s: Sketch, x: str) -> str:
    """An If whose condition is known, or follows from the values."""
    if s.chance(0.5):
        condition = s.const(np.array(s.chance(0.5)))
    else:
        total = s.add("ReduceMax", x, keepdims=0)
        condition = s.add("Greater", total, s.const(np.float32(s.one((-100.0, 0.5, 100.0)))))
    count = len(s.nodes)
    parts = [chain, viewed] if s.opset >= 11 else [chain]  # before, both return the same shape
    first, second = (_taken_out(s, x, s.one(parts)) for _ in range(2))
    assert len(s.nodes) == count
    del s.values[first[1]], s.values[second[1]]
    bodies = {"then_branch": _body(*first), "else_branch": _body(*second)}
    return s.add("If", condition, **bodies)


def loop(s: Sketch, x: str) -> str:
    """A Loop of a fixed number of turns over one value that keeps its shape."""
    if s.opset < 11:
        raise Rejected("Loop")
    shape = s.shape(x)
    state = s.name("state")
    s.values[state] = s.values[x]
    nodes, y = _taken_out(s, state, _bounded)
    if s.shape(y) != shape:
        raise Rejected("shape changes")
    del s.values[y], s.values[state]
    turn, going, still = (s.name(stem) for stem in ("turn", "going", "still"))
    body = helper.make_graph(
        [*nodes, helper.make_node("Identity", [going], [still])],
        f"turns_{y}",
        [
            helper.make_tensor_value_info(turn, onnx.TensorProto.INT64, []),
            helper.make_tensor_value_info(going, onnx.TensorProto.BOOL, []),
            helper.make_tensor_value_info(state, FLOAT, list(shape)),
        ],
        [
            helper.make_tensor_value_info(still, onnx.TensorProto.BOOL, []),
            helper.make_tensor_value_info(y, FLOAT, list(shape)),
        ],
    )
    return s.add("Loop", s.const(np.int64(s.between(0, 3))), s.const(np.array(True)), x, body=body)


def _bounded(s: Sketch, x: str) -> str:
    return s.add("Tanh", chain(s, x, 2))


def function(s: Sketch, x: str) -> str:
    """A function of the model, called once or twice."""
    if s.opset < 10:
        raise Rejected("functions")
    nodes, y = _taken_out(s, x)
    # a function reads nothing from outside: its constants become nodes
    used = sorted({n for node in nodes for n in node.input if n in s.constants})
    inside: list[Any] = [
        helper.make_node(
            "Constant", [], [name], value=onnx.numpy_helper.from_array(s.constants[name])
        )
        for name in used
        if not any(name in node.output for node in nodes)
    ]
    name = s.name("Block")
    opsets = [helper.make_opsetid("", s.opset)]
    s.functions.append(helper.make_function("drawn", name, [x], [y], [*inside, *nodes], opsets))
    del s.values[y]
    out = s.add(name, x, domain="drawn")
    if s.chance(0.5) and s.shape(out) == s.shape(x):
        out = s.add(name, out, domain="drawn")
    return out


BODIES = [branches, branches, loop, function, function]
