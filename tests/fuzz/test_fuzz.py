"""Random graphs of a hundred operators are rewritten to what computes the same."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.fuzz.__main__ import is_right
from tests.fuzz.comparison import difference
from tests.fuzz.draw import draw
from tests.fuzz.shrink import shrink
from tests.fuzz.worker import outcome

FEW, OPERATORS = 100, 70


@pytest.mark.parametrize("first", range(0, FEW, 25))
def test_random_graphs_keep_their_function(first: int) -> None:
    for seed in range(first, first + 25):
        drawn = draw(seed)
        assert drawn is None or is_right(said := outcome(drawn.model, drawn.feeds, "off")), said


def test_some_random_graphs_keep_it_by_the_proof() -> None:
    for seed in range(FEW, FEW + 8):
        drawn = draw(seed)
        assert drawn is None or is_right(said := outcome(drawn.model, drawn.feeds, "certify")), said


def test_a_few_graphs_have_most_operators() -> None:
    drawn = filter(None, map(draw, range(FEW)))
    kinds = Counter(node.op_type for one in drawn for node in one.model.graph.node)
    assert len([kind for kind in kinds if not kind.startswith("Block")]) >= OPERATORS


def test_the_same_seed_draws_the_same_graph() -> None:
    first, second = draw(7), draw(7)
    assert first is not None and second is not None
    assert first.model == second.model


def _with_a_wrong_weight(model: onnx.ModelProto) -> onnx.ModelProto:
    """Every weight of a Conv moved by 1e-5 of itself: 170 roundings."""
    wrong = onnx.ModelProto()
    wrong.CopyFrom(model)
    weights = {node.input[1] for node in wrong.graph.node if node.op_type == "Conv"}
    for tensor in wrong.graph.initializer:
        if tensor.name in weights:
            array = numpy_helper.to_array(tensor) * np.float32(1 + 1e-5)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return wrong


CONV_AND_MORE = """<ir_version: 10, opset_import: ["" : 17]>
net (float[1, 2, 3, 3] x) => (float[1, 2, 3, 3] y, float[1, 2, 3, 3] z)
<float[2, 2, 1, 1] w = {1.5, -0.5, 0.25, 2.0}> {
  a = Neg (x)
  b = Conv (a, w)
  y = Tanh (b)
  z = Relu (a)
}"""


def test_a_wrong_weight_is_found_and_the_graph_made_smaller() -> None:
    model = onnx.parser.parse_model(CONV_AND_MORE)
    feeds = {"x": np.random.default_rng(0).standard_normal((1, 2, 3, 3)).astype(np.float32)}
    wrong = _with_a_wrong_weight(model)
    assert difference(model, model, feeds) == ""
    assert difference(model, wrong, feeds).startswith("output 0 is off by")
    small, _ = shrink(
        (model, feeds), lambda c: bool(difference(c[0], _with_a_wrong_weight(c[0]), c[1]))
    )
    assert [node.op_type for node in small.graph.node] == ["Conv"]
