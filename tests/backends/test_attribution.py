"""Attributing nodes to the steps of an engine that names only a few of them."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from flatfold.backends.attribution import INPUTS, EngineStep, attribute_nodes
from tests.backends.suite import HEAD

BLOCK = (
    "g (float[1, 4, 8, 8] x) => (float[1, 4, 8, 8] y) "
    "{ a = Conv (x, u)  b = Conv (x, v)  s = Add (a, b)  r = Relu (s) "
    "c = Conv (r, w)  t = Add (c, x)  y = Relu (t) }"
)


@pytest.fixture
def graph() -> ir.Graph:
    ones = np.ones((4, 4, 1, 1), np.float32)
    weights = [ir.tensor(ones, name=name) for name in "uvw"]
    model = ir.from_onnx_text(HEAD + BLOCK, initializers=weights)
    for node in model.graph:
        node.name = node.outputs[0].name
    return model.graph


def names(graph: ir.Graph, *steps: tuple[str, str, tuple[int, ...]]) -> list[str]:
    """The nodes of steps, given by kind, the nodes they are known by, and what they read."""
    of = {node.name: node for node in graph}
    given = [
        EngineStep(kind, tuple(of[name] for name in known), reads, moves=kind == "Reorder")
        for kind, known, reads in steps
    ]
    return ["".join(node.name or "?" for node in nodes) for nodes in attribute_nodes(graph, given)]


def test_each_node_by_itself(graph: ir.Graph) -> None:
    reads = [(INPUTS,), (INPUTS,), (0, 1), (2,), (3,), (4, INPUTS), (5,)]
    steps = [("k", name, read) for name, read in zip("absrcty", reads, strict=True)]
    assert names(graph, *steps) == list("absrcty")


def test_a_step_is_completed_backwards_and_by_what_only_it_reads(graph: ir.Graph) -> None:
    # b is computed first; the sum and the Relu behind it are fused into a, all after c into c.
    steps = [("Conv", "b", (INPUTS,)), ("Conv", "a", (INPUTS, 0)), ("Conv", "y", (1, INPUTS))]
    assert names(graph, *steps) == ["b", "asr", "cty"]


def test_what_moves_data_computes_nothing_and_hides_nothing(graph: ir.Graph) -> None:
    steps = [
        ("Reorder", "", (INPUTS,)),
        ("Conv", "b", (0,)),
        ("Conv", "a", (0, 1)),
        ("Conv", "c", (2, 0)),
        ("Reorder", "", (3,)),
    ]
    assert names(graph, *steps) == ["", "b", "asr", "cty", ""]


def test_a_step_known_by_nothing_has_what_can_be_computed_from_what_it_reads(
    graph: ir.Graph,
) -> None:
    steps = [
        ("Conv", "b", (INPUTS,)),
        ("Conv", "a", (INPUTS,)),
        ("Eltwise", "", (0, 1)),
        ("GroupConvolution", "", (2,)),
        ("Eltwise", "", (3, INPUTS)),
    ]
    assert names(graph, *steps) == ["b", "a", "sr", "c", "ty"]


def test_a_later_step_that_reads_the_same_has_the_sum(graph: ir.Graph) -> None:
    steps = [
        ("Conv", "b", (INPUTS,)),
        ("Conv", "a", (INPUTS,)),
        ("Eltwise", "r", (0, 1)),
        ("Conv", "c", (2, INPUTS)),
        ("Eltwise", "y", (3, INPUTS)),
    ]
    assert names(graph, *steps) == ["b", "a", "sr", "c", "ty"]


def test_the_parts_of_a_node_have_it_in_common(graph: ir.Graph) -> None:
    of = {node.name: node for node in graph}
    whole = EngineStep("Mul", (of["r"],), (0, 1))
    steps = [
        EngineStep("Conv", (of["b"],), (INPUTS,)),
        EngineStep("Exp", (), (0,), part=True),
        whole,
    ]
    found = attribute_nodes(graph, steps)
    assert found[1] == found[2] and found[1][:3] == (of["a"], of["s"], of["r"])


def test_what_no_step_names_is_with_the_last_that_it_builds_on(graph: ir.Graph) -> None:
    steps = [("Conv", "a", (INPUTS,)), ("Conv", "b", (INPUTS,))]
    assert names(graph, *steps) == ["a", "bsrcty"]
