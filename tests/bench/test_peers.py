"""What is kept of `make peers`, and when flatfold counts as behind."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from bench import networks, peers
from bench.peers import Graph, Row


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
