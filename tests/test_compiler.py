"""The steps from a model to an engine, and one proof for all targets that get the same graph."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

import flatfold
from flatfold.compiler import Compiler, Options
from flatfold.errors import UnknownName
from flatfold.frontend import Source
from flatfold.passes import Pipeline, Remark
from flatfold.result import Optimized, summarise
from flatfold.sources import resolve
from tests.nets import Net

TARGETS = ("ort-cpu", "openvino", "default")


def source(width: int) -> Source:
    net = Net((1, 16, 28, 28), dtype=np.float32)
    branches = [net.bn(net.conv(net.x, 16, 16, (k, k), False, 16), 16) for k in (width, 3)]
    return resolve(net.model(net.op("Relu", net.op("Add", *branches))))


def results(width: int, monkeypatch: pytest.MonkeyPatch) -> tuple[list[ir.Model], int]:
    """The graphs for the three targets, and how many of them were proved."""
    proofs = []
    prove = Compiler.prove

    def counted(*args: Any) -> Optimized:
        proofs.append(1)
        return prove(*args)

    monkeypatch.setattr(Compiler, "prove", counted)
    compiler = Compiler(source(width))
    optimized = [compiler.optimize(Options(target)) for target in TARGETS]
    operators = [summarise(result.graph).operators for result in optimized]
    assert [result.equivalence.verdict for result in optimized] == ["certified"] * 3
    assert operators == [{"Conv": 1, "Relu": 1}] * 3
    return [result.graph for result in optimized], len(proofs)


def test_targets_that_want_the_same_graph_share_its_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    graphs, proofs = results(5, monkeypatch)
    assert graphs[0] is graphs[1] is graphs[2] and proofs == 1


def test_a_target_that_wants_another_graph_has_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    graphs, proofs = results(13, monkeypatch)
    assert graphs[0] is graphs[2] is not graphs[1] and proofs == 2
    kernels = [graph.graph.node(0).attributes["kernel_shape"].as_ints() for graph in graphs[:2]]
    assert [list(kernel) for kernel in kernels] == [[13, 13], [13, 14]]


def test_compile_enters_two_modules_before_the_first_rewrite(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = Pipeline.run
    callers: list[str] = []

    def recording(pipeline: Pipeline, model: ir.Model) -> list[Remark]:
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            callers.append(frame.f_globals["__name__"])
            frame = frame.f_back
        return run(pipeline, model)

    monkeypatch.setattr(Pipeline, "run", recording)
    flatfold.compile(source(3).model, "ort-cpu", verify="off").close()
    modules = dict.fromkeys(name for name in reversed(callers) if name.startswith("flatfold"))
    assert list(modules) == ["flatfold.api", "flatfold.compiler"]


def test_options_are_checked_when_they_are_made() -> None:
    names = iter(["merge-branches", "fold-batchnorm"])
    options = Options("ort-cpu", names)
    assert options.passes == ("merge-branches", "fold-batchnorm")
    assert {rewrite.name for rewrite in options.rewrites()} == set(options.passes or ())
    wrong_options: tuple[dict[str, Any], ...] = (
        {"target": "ort"},
        {"passes": ["merge"]},
        {"verify": "prove"},
    )
    for wrong in wrong_options:
        with pytest.raises(UnknownName):
            Options(**wrong)


def test_no_convolution_in_double_takes_the_place_of_what_runs():
    """ONNX Runtime has no kernel for it on a CPU; for a Mul, a Concat and a Sigmoid it has."""
    net = Net()
    joined = net.op("Concat", net.x, net.op("Relu", net.x), axis=1)
    scale = net.const(net.rng.uniform(0.5, 2, (1, 8, 1, 1)))
    model = net.model(net.op("Sigmoid", net.op("Mul", joined, scale)))
    done = flatfold.optimize(model)
    assert "Conv" not in done.after.operators and done.equivalence.passed
