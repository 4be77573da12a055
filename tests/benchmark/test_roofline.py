"""The least time of work, by numbers that were worked out by hand."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from flatfold.benchmark.machine.roofline import bytes_of, floor_of, layer_floor
from flatfold.benchmark.report import Limit

TEXT = (
    '<ir_version: 10, opset_import: ["" : 20]> '
    "g (float[BATCH, 2, 4, 4] x) => (float[BATCH, 3, 4, 4] y) "
    "<float[BATCH, 3, 4, 4] a, float[BATCH, 3, 4, 4] b> "
    "{ a = Conv (x, w, bias)  b = Relu (a)  y = Add (b, a) }"
)
IMAGE, MAP = 2 * 16 * 4, 3 * 16 * 4  # bytes
WEIGHTS = 4 * (3 * 2 + 3)
MACS = 3 * 2 * 16


def graph(batch: str = "1") -> ir.Model:
    weights = {"w": np.ones((3, 2, 1, 1), np.float32), "bias": np.ones(3, np.float32)}
    model = ir.from_onnx_text(
        TEXT.replace("BATCH", batch),
        initializers=[ir.tensor(array, name=name) for name, array in weights.items()],
    )
    for name, value in model.graph.initializers.items():
        value.shape = ir.Shape(weights[name].shape)
    return model


def test_every_node_reads_and_writes_what_it_needs() -> None:
    conv, relu, add = IMAGE + WEIGHTS + MAP, 2 * MAP, 3 * MAP
    assert bytes_of(graph()) == bytes_of(graph("n")) == conv + relu + add
    assert bytes_of(graph("n"), batch=2) == 2 * (IMAGE + 6 * MAP) + WEIGHTS


def test_a_whole_graph_moves_its_weights_and_its_ends() -> None:
    moved = WEIGHTS + IMAGE + MAP
    assert floor_of(graph(), Limit("t", flops=1.0, bytes=1e9)) == 2 * MACS
    assert floor_of(graph(), Limit("t", flops=1e9, bytes=1.0)) == moved
    assert floor_of(graph("n"), Limit("t", flops=1e9, bytes=1.0), batch=2) == 2 * moved - WEIGHTS


def test_a_layer_moves_what_enters_and_leaves_it() -> None:
    conv, relu, add = model = list(graph().graph)
    limit = Limit("t", flops=1e9, bytes=1.0)
    assert layer_floor([conv], limit) == IMAGE + WEIGHTS + MAP
    assert (
        layer_floor([conv, relu], limit) == IMAGE + WEIGHTS + 2 * MAP
    )  # a is read by the sum, too
    assert layer_floor([relu, add], limit) == 2 * MAP
    assert layer_floor(model, limit) == IMAGE + WEIGHTS + MAP
    assert layer_floor([conv], Limit("t", flops=2.0, bytes=1e9)) == MACS


@pytest.mark.parametrize("sizes", ["3, 4, h", "c, 4, 4"])
def test_where_a_size_is_open_nothing_is_said(sizes: str) -> None:
    model = graph()
    value = model.graph[0].outputs[0]
    value.shape = ir.Shape(["n", *(int(s) if s.isdigit() else s for s in sizes.split(", "))])
    limit = Limit("t", 1.0, 1.0)
    assert bytes_of(model) is None
    assert layer_floor(list(model.graph)[:1], limit) is None
    assert floor_of(model, limit) is None  # the Conv makes a value of unknown size
