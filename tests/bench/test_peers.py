"""What is kept of `make peers`, and when flatfold counts as behind."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnx
import pytest

from bench import networks, peers
from bench.peers import Graph, Row
from flatfold.passes import Remark
from flatfold.passes.cost.model import Cost


def count(nodes: int, conv: int = 0, norms: int = 0, layers: int | None = None) -> peers.Count:
    layers = conv if layers is None else layers
    return {"nodes": nodes, "Conv": conv, "BatchNormalization": norms, "layers": layers}


@pytest.mark.parametrize(
    ("ours", "other", "behind"),
    [
        (count(10, 4), count(10, 4), []),
        (count(11, 4), count(10, 5), ["1 nodes"]),
        (count(10, 4, 2), count(12, 4), ["2 BatchNormalization"]),
        (count(10, 6), count(12, 4), ["2 Conv"]),
        (count(10, 6, layers=8), count(12, 4, layers=8), []),  # products that became convolutions
    ],
)
def test_behind_is_more_than_another_tool_leaves(ours, other, behind) -> None:
    counts = {"file": other, "flatfold": ours, "onnxsim": other}
    assert Row("net", "form", counts).behind == behind


def test_what_another_tool_joins_is_no_convolution() -> None:
    """A product became a convolution; the other tool joined two products into one."""
    counts = {
        "file": count(12, 4, layers=8),
        "flatfold": count(10, 5, layers=8),
        "onnxsim": count(11, 4, layers=7),
    }
    assert Row("net", "form", counts).behind == []


@pytest.mark.parametrize(
    ("shape", "group", "kind"),
    [((8, 1, 1, 1), 8, peers.SCALE), ((8, 1, 3, 3), 8, "Conv"), ((8, 1, 1, 1), 4, "Conv")],
)
def test_one_tap_for_each_channel_is_a_scale(shape, group, kind) -> None:
    node = onnx.helper.make_node("Conv", ["x", "w"], ["y"], group=group)
    assert peers._counted_as(node, {"w": shape}) == kind


def larger(nodes: int, time: float, **other) -> Remark:
    """A change that writes `nodes` more nodes, which take `time` of what the old ones take."""
    costs = {"before": Cost(nodes=2, seconds=1e-5), "after": Cost(2 + nodes, seconds=time * 1e-5)}
    return Remark("merge-branches", "node", True, "APPLIED", "", **{**costs, **other})


def test_changes_that_make_a_graph_larger_to_save_time_are_added_up() -> None:
    cheaper, two = larger(1, 0.5), larger(2, 0.7)
    assert peers.chosen([cheaper, two, replace(two, node="other")]) == (3, 60)  # made together
    not_applied, dearer, smaller = replace(two, applied=False), larger(1, 1.01), larger(-1, 0.5)
    assert peers.chosen([not_applied, dearer, smaller]) == (0, 0)


@pytest.mark.parametrize(
    ("nodes", "ours", "chosen"),
    [
        (1, count(11, 5), True),
        (2, count(11, 5), True),
        (0, count(11, 5), False),
        (1, count(12, 5), False),
        (1, count(11, 6), False),
        (1, count(11, 5, 1), False),  # no change that saves time leaves a norm
        (1, count(10, 4), False),  # not behind
    ],
)
def test_behind_by_choice_is_what_the_remarks_account_for(nodes, ours, chosen) -> None:
    ours = {**ours, "chosen": nodes, "percent": 50}
    row = Row("net", "form", {"file": count(12, 4), "flatfold": ours, "onnxsim": count(10, 4)})
    assert bool(row.choice) == chosen
    text = peers.page([row])
    assert ("50 % of the time" in text) == chosen
    behind = int(bool(row.behind) and not chosen)
    assert f"Of 1 files flatfold is behind some other tool on {behind}:" in text


def test_a_file_keeps_what_was_chosen(tmp_path: Path) -> None:
    model = onnx.helper.make_model(onnx.helper.make_graph([], "empty", [], []))
    onnx.helper.set_model_props(model, {peers.CHOSEN: "3 60"})
    onnx.save(model, tmp_path / "model.onnx")
    counted = peers._count(tmp_path / "model.onnx")
    assert (counted["chosen"], counted["percent"]) == (3, 60)


def test_without_an_answer_it_is_behind() -> None:
    assert Row("net", "form", {"onnxsim": count(1)}).behind == ["no answer"]


def test_a_tool_counts_again_only_where_it_is_another_one(tmp_path: Path, monkeypatch) -> None:
    asked: list[str] = []

    def left_by(tool: str, graph: Graph, folder: Path) -> peers.Count | None:
        asked.append(tool)
        return None if tool == "deployed" else count(len(asked))

    monkeypatch.setattr(peers, "SAVED", tmp_path)
    monkeypatch.setattr(peers, "_left_by", left_by)
    graph, versions = Graph("net", "script, fixed"), peers._versions()
    first = peers._counts(graph, versions)
    assert asked == ["file", *peers.TOOLS] and "deployed" not in first
    assert peers._counts(graph, versions) == first and len(asked) == 1 + len(peers.TOOLS)
    asked.clear()
    peers._counts(graph, {**versions, "flatfold": "changed"})
    assert asked == ["flatfold"]
    asked.clear()
    peers._counts(graph, {**versions, "file": "exported in another way"})
    assert asked == ["file", *peers.TOOLS]


def test_the_networks_of_timm_are_sixty_each_once() -> None:
    assert len(networks.TIMM) == len(set(networks.TIMM)) == 60
    assert set(networks.LARGER) <= set(networks.TIMM)
