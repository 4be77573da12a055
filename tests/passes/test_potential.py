"""Every change lowers the potential of the graph, so no two changes undo each other for ever."""

from __future__ import annotations

import itertools

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings

from flatfold.passes import PIPELINE, PROFILES, Change, Pipeline, Rewrite
from flatfold.passes import pipeline as driver
from flatfold.passes.cost.model import CostModel
from flatfold.passes.lifting.lifter import Lifter
from flatfold.passes.potential import Potential, potential_of
from tests.nets import Net, assert_same, rewrite
from tests.passes.drawn.build import build
from tests.passes.drawn.records import Graph
from tests.passes.drawn.strategy import graphs
from tests.passes.test_random_graphs import DRAWN

PASSES = [kind() for kind in PIPELINE]
REWRITES = [rewrite for rewrite in PASSES if isinstance(rewrite, Rewrite)]


def potential(graph: ir.Graph, target: str) -> Potential:
    cost = CostModel(PROFILES[target])
    return potential_of(list(graph), Lifter(REWRITES, cost).linear, cost)


def potentials(model: onnx.ModelProto, target: str) -> list[Potential]:
    """That of the graph in front of changes that are made together, and that of the result."""
    met: list[Potential] = []

    def look(*changes: Change) -> None:
        met.append(potential(changes[0].region.root.graph, target))

    graph = ir.from_proto(model)
    Pipeline(PASSES, PROFILES[target], look).run(graph)
    return [*met, potential(graph.graph, target)]


@settings(DRAWN, max_examples=DRAWN.max_examples // 4)
@given(graphs())
def test_no_change_raises_it(graph: Graph) -> None:
    met = potentials(build(graph).model, "default")
    assert all(after < before for before, after in itertools.pairwise(met))


def halves_with_offsets(net: Net) -> str:
    """Offsets on one half of the channels, beside the other, behind a pool of one pixel."""
    first = net.op("Split", net.x, outputs=2, num_outputs=2, axis=1)
    second = f"{first}_1"
    offset = net.op("Add", first, net.const(net.rng.standard_normal((2, 1, 1))))
    y = net.op("Concat", net.op("Add", offset, net.const(np.array(-6.0))), second, axis=1)
    return net.op("AveragePool", y, kernel_shape=[1, 1])


def one_column(net: Net) -> str:
    """A product that leaves one column, and an offset for all."""
    column = net.op("MatMul", net.x, net.const(net.rng.standard_normal((8, 1))))
    return net.op("Add", column, net.const(np.array([2.0])))


@pytest.mark.parametrize("target", sorted(PROFILES))
@pytest.mark.parametrize(
    ("block", "shape"), [(halves_with_offsets, (2, 4, 5, 7)), (one_column, (4, 3, 8))]
)
def test_graphs_that_were_rewritten_to_and_fro(block, shape: tuple, target: str) -> None:
    net = Net(("N", 4, "d", 7) if len(shape) == 4 else shape)
    model = net.model(block(net))
    for dim in model.graph.output[0].type.tensor_type.shape.dim[:-1] if len(shape) == 4 else ():
        dim.Clear()
    done = rewrite(model, target=target)
    assert_same(done, shape)
    assert len(done.after.graph.node) <= len(model.graph.node)
    assert "SWEEPS" not in done.codes


def test_the_last_state_is_kept_where_sweeps_run_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "MOST_SWEEPS", 1)
    net = Net()
    done = rewrite(net.model(net.bn(net.conv(net.x, 4, 4, (3, 3)), 4)))
    assert_same(done, net.shape)
    assert done.ops == {"Conv": 1}
    assert "SWEEPS" in done.codes
