"""Each rewrite added to those before it, and what it does to a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest
from torch import nn

import flatfold
from flatfold.benchmark.candidates.ablation import Step, rewrite_steps, step_reports
from flatfold.benchmark.explain.graphs import graph_change
from flatfold.benchmark.measure.protocol import Plan
from flatfold.benchmark.report import Row
from flatfold.compiler import Compiler, Options
from flatfold.errors import PassError
from flatfold.models.initialise import initialise
from flatfold.models.repvgg import RepVGGBlock
from flatfold.models.vanillanet import VanillaBlock
from flatfold.passes.remark import REPLACED_KEY
from flatfold.proof import compare
from flatfold.result import Optimized
from tests.benchmark import made
from tests.cli.running import write_onnx


class Small(nn.Module):
    """Two RepVGG blocks, of which only the second has the identity branch, and a pooled head."""

    def __init__(self) -> None:
        super().__init__()
        self.first = RepVGGBlock(3, 8, 2, 1, False)
        self.second = RepVGGBlock(8, 8, 1, 1, False)
        self.third = RepVGGBlock(8, 8, 1, 1, False)

    def forward(self, x):  # type: ignore[no-untyped-def]
        return self.third(self.second(self.first(x)))


@pytest.fixture(scope="module")
def small() -> Optimized:
    net = Small()
    initialise(net, seed=0)
    return flatfold.optimize(net.eval(), input_shape=(1, 3, 17, 12), verify="off")


def test_each_stage_computes_the_same_and_the_last_is_flatfolds(small: Optimized) -> None:
    found = rewrite_steps(small.original, small, "ort-cpu", lambda _: None)
    assert [stage.rewrite for stage in found] == ["", "fold-batchnorm", "merge-branches"]
    assert [stage.applied for stage in found] == [0, 7, 3]  # six layers, and an Add of zero
    assert found[0].graph is small.training and found[-1].graph is small.graph
    for stage in found[1:]:
        assert compare(small.original, stage.graph).passed


def test_a_rewrite_that_only_opens_the_way_has_the_replacements_that_became_possible() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = VanillaBlock(8, 8, 1, 2)

        def forward(self, x):  # type: ignore[no-untyped-def]
            return self.block(x, 1.0)

    result = flatfold.optimize(Block().eval(), input_shape=(1, 8, 9, 7), verify="off")
    found = rewrite_steps(result.original, result, "ort-cpu", lambda _: None)
    (collapse,) = [stage for stage in found if stage.rewrite == "collapse-activations"]
    assert collapse.applied == 1


def test_a_step_that_fails_is_left_out(small: Optimized, monkeypatch: pytest.MonkeyPatch) -> None:
    rewrite = Compiler.rewrite

    def failing(compiler: Compiler, options: Options) -> Any:
        names = {kind.name for kind in options.rewrites()}
        if "fold-batchnorm" in names and "merge-branches" not in names:
            raise PassError("it cannot be alone")
        return rewrite(compiler, options)

    monkeypatch.setattr(Compiler, "rewrite", failing)
    found = rewrite_steps(small.original, small, "ort-cpu", lambda _: None)
    assert [stage.rewrite for stage in found] == ["", "merge-branches"]
    assert found[-1].graph is small.graph


def test_where_nothing_is_rewritten_there_is_the_training_graph_alone() -> None:
    result = flatfold.optimize(nn.Conv2d(3, 4, 3), input_shape=(1, 3, 9, 9), verify="off")
    (only,) = rewrite_steps(result.original, result, "ort-cpu", lambda _: None)
    assert only.graph is result.training


def stage(rewrite: str) -> Step:
    return Step(rewrite, 1, ir.Model(ir.Graph([], [], nodes=[]), ir_version=10))


def test_a_step_is_timed_beside_the_one_before() -> None:
    rows = [made.row("training", 0.04), made.row("+ a", 0.02), made.row("flatfold", 0.01)]
    steps = step_reports("ort-cpu", [stage(""), stage("a"), stage("b")], rows, None, Plan())
    assert [step.rewrite for step in steps] == ["", "a", "b"]
    assert [step.row for step in steps] == [row.name for row in rows]
    assert steps[0].ratio is None and steps[0].verdict == ""
    for step in steps[1:]:
        assert step.ratio is not None and step.ratio.value == pytest.approx(0.5)
        assert step.verdict == "faster"


def test_a_step_that_is_wrong_or_was_not_timed_is_beside_nothing() -> None:
    for bad in (
        made.row("+ a", 0.02, made.WRONG),
        Row("+ a", "ort-cpu", reason="it crashed"),
    ):
        rows = [made.row("training", 0.04), bad, made.row("flatfold", 0.01)]
        steps = step_reports("ort-cpu", [stage(""), stage("a"), stage("b")], rows, None, Plan())
        assert [step.ratio for step in steps] == [None, None, None]


def test_blocks_of_one_kind_are_drawn_once_with_all_their_places(small: Optimized) -> None:
    found = graph_change("ort-cpu", small)
    assert found.target == "ort-cpu"
    assert found.operators_before["BatchNormalization"] == 8
    assert found.operators_after == {"Conv": 3, "Relu": 3}
    two, one = found.blocks
    assert (two.rewrite, two.places) == ("merge-branches", ("second", "third"))
    assert (one.rewrite, one.places) == ("merge-branches", ("first",))
    titles = [box.lines[0] for box in two.before.boxes]
    assert titles[0] == "input" and titles[-1] == "output"
    assert sorted(titles[1:-1]) == sorted(
        ["Conv 3x3", "Conv 1x1", *["BatchNorm"] * 3, *["Add"] * 2]
    )
    assert [box.lines for box in one.after.boxes] == [
        ("input", "3 x 17 x 12"),
        ("Conv 3x3", "3 → 8, bias, stride 2"),
        ("output", "8 x 9 x 6"),
    ]
    assert one.after.edges == ((0, 1), (1, 2))
    assert [(d.rewrite, d.applied, d.code) for d in found.decisions] == [
        ("merge-branches", True, "APPLIED"),
        ("merge-branches", True, "APPLIED"),
    ]


def test_what_went_away_altogether_is_a_block_with_nothing_after_it() -> None:
    class Idle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.slope = nn.LeakyReLU(1.0)

        def forward(self, x):  # type: ignore[no-untyped-def]
            return self.slope(x).relu()

    result = flatfold.optimize(Idle().eval(), input_shape=(1, 3, 9, 7), verify="off")
    (block,) = graph_change("ort-cpu", result).blocks
    assert [box.lines[0] for box in block.before.boxes] == ["input", "LeakyRelu", "output"]
    assert block.after.boxes == ()


def test_a_graph_of_others_has_blocks_too(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "net.onnx", size=24)
    found = graph_change("ort-cpu", flatfold.optimize(path, verify="off"))
    assert found.blocks and all(block.places[0] for block in found.blocks)


@pytest.mark.parametrize("text", ["no JSON", "[]", "7"])
def test_what_a_file_says_of_its_own_nodes_is_not_believed(text: str) -> None:
    result = flatfold.optimize(nn.Conv2d(3, 4, 3), input_shape=(1, 3, 9, 9), verify="off")
    (node,) = result.graph.graph
    node.metadata_props[REPLACED_KEY] = text
    (block,) = graph_change("ort-cpu", result).blocks
    assert [box.lines[0] for box in block.after.boxes] == ["input", "Conv 3x3", "output"]
