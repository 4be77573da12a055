"""The forms of a kind compute the same, and what is said of their times follows from the times."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest

from bench.costs import (
    SLOWER,
    Drawn,
    Form,
    Result,
    between_layers,
    drawn,
    forms,
    graphs_of,
    result,
    share,
    skipped,
)
from bench.operator_forms import KINDS, Kind
from flatfold.passes.cost.model import Cost
from flatfold.passes.cost.profiles import PROFILES

ORT = PROFILES["ort-cpu"]
KIND = {kind.name: kind for kind in KINDS}


def small(kind: Kind) -> Kind:
    return replace(kind, channels=(8,), sizes=((7, 9),))


def outputs(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    """Of ONNX Runtime with its optimisations off."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def products(model: onnx.ModelProto, pixels: int) -> int:
    """The most that are added up for one output, over all layers and means."""
    per_output = (np.prod(t.dims[1:]) for t in model.graph.initializer if len(t.dims) > 1)
    means = sum("Mean" in n.op_type or "Average" in n.op_type for n in model.graph.node)
    return int(sum(per_output)) + means * pixels + len(model.graph.node)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_all_forms_of_a_kind_compute_the_same(kind):
    for number in range(2):
        shape, ways = drawn(small(kind), number, seed=0)
        x = np.random.default_rng(1).standard_normal(shape, dtype=np.float32)
        first, *others = forms(ways, ORT)
        expected = outputs(first.model, x)
        for form in others:
            roundings = sum(products(f.model, shape[2] * shape[3]) for f in (first, form))
            bound = roundings * 2.0**-24 * np.abs(expected).max()
            np.testing.assert_allclose(outputs(form.model, x), expected, rtol=0, atol=bound)


def test_most_kinds_have_several_forms():
    counts = [len(forms(drawn(small(kind), 0, seed=0)[1], ORT)) for kind in KINDS]
    assert sum(count > 1 for count in counts) > len(KINDS) / 2


def test_one_seed_draws_the_same_graphs():
    one, two = (next(graphs_of(KIND["branches"], ORT, 3)) for _ in range(2))
    assert (one.shape, [f.model for f in one.forms]) == (two.shape, [f.model for f in two.forms])
    assert next(graphs_of(KIND["branches"], ORT, 4)).forms != one.forms


def test_a_region_between_layers_is_read_and_written_by_them():
    shape, ways = drawn(small(KIND["branches"]), 0, seed=0)
    graph = between_layers(shape, forms(ways, ORT)[0].model).graph
    assert [graph[0].op_type, graph[-1].op_type] == ["Conv", "Conv"]
    assert len(graph) == 4 + len(forms(ways, ORT)[0].model.graph.node)
    assert [node.op_type for node in between_layers(shape, None).graph] == ["Conv", "Relu", "Conv"]


def priced(*costs: Cost) -> Drawn:
    return Drawn("kind", (1, 8, 7, 7), tuple(Form("", onnx.ModelProto(), cost) for cost in costs))


def test_the_lower_price_is_taken_and_near_it_fewer_nodes():
    assert priced(Cost(2, seconds=2.0), Cost(3, seconds=1.0)).pairs == [(1, 0)]
    assert priced(Cost(3, seconds=1.0), Cost(2, seconds=1.01)).pairs == [(1, 0)]
    assert priced(Cost(3, seconds=1.0), Cost(2, seconds=1.03)).pairs == [(0, 1)]
    assert priced(Cost(2, seconds=1.0), Cost(2, seconds=1.0)).pairs == [(0, 1)]  # as it is


def test_the_ratio_is_that_of_what_a_form_adds_to_the_layers():
    graph = priced(Cost(1, seconds=1.0), Cost(2, seconds=2.0))
    times = [[10.0, 10.0 + 3 * n, 10.0 + 2 * n] for n in range(1, 10)]
    found = result(graph, 0, 1, times)
    assert (found.ratio, found.low, found.high) == (1.5, 1.5, 1.5)
    assert found.seconds == (15.0, 10.0)
    assert found.verdict == "wrong"
    assert result(graph, 1, 0, times).verdict == "right"


def test_an_interval_around_the_limit_is_undecided_and_counts_neither_way():
    graph = priced(Cost(1, seconds=1.0), Cost(2, seconds=2.0))

    def ranging(low: float, high: float) -> Result:
        return Result(graph, 0, 1, (1.0, 1.0), (low + high) / 2, low, high)

    right, wrong = ranging(0.9, SLOWER), ranging(SLOWER + 0.01, 2.0)
    unsure = ranging(0.9, SLOWER + 0.01)
    assert [r.verdict for r in (right, wrong, unsure)] == ["right", "wrong", "undecided"]
    assert share([right, right, right, wrong, unsure, unsure]) == 0.25
    assert share([unsure]) == 0.0


def test_with_few_rounds_nothing_is_decided():
    graph = priced(Cost(1, seconds=1.0), Cost(2, seconds=2.0))
    assert result(graph, 0, 1, [[0.0, 3.0, 2.0]] * 5).verdict == "undecided"


def test_a_target_that_cannot_be_timed_says_why():
    assert skipped("ort-cpu") == ""
    assert skipped("trt")
