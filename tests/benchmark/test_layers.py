"""Layers of two profiles of one network, put together by what was rewritten into what."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import nn

import flatfold
from flatfold.backends import load_backend
from flatfold.benchmark.explain.layers import described, layer_changes
from flatfold.benchmark.report import Layer, LayerChange, Limit, Profile

SCOPES = {"conv": "stage.0.a", "norm": "stage.0.b", "relu": "stage.0", "head": "head"}


def chain(scopes: Mapping[str, str], replaced: Mapping[str, list[str]]) -> ir.Model:
    """Nodes in a row, named so, in those modules; and which nodes some of them stand for."""
    value = source = ir.Value(
        name="x", shape=ir.Shape([1, 4]), type=ir.TensorType(ir.DataType.FLOAT)
    )
    nodes = []
    for name, scope in scopes.items():
        node = ir.node("Relu", [value], name=name)
        node.outputs[0].shape, node.outputs[0].type = source.shape, source.type
        node.metadata_props["flatfold.scope"] = scope
        if name in replaced:
            node.metadata_props["flatfold.rewrite"] = "merge-branches"
            node.metadata_props["flatfold.replaced"] = json.dumps(replaced[name])
        value = node.outputs[0]
        value.name = f"{name}_y"
        nodes.append(node)
    return ir.Model(ir.Graph([source], [value], nodes=nodes, opset_imports={"": 20}), ir_version=10)


TRAINING = chain(SCOPES, {})
REWRITTEN = chain({"one": "stage.0", "relu": "stage.0", "head": "head"}, {"one": ["norm", "conv"]})


def profile(row: str, **layers: tuple[float, str]) -> Profile:
    """Layers by name: seconds, and the nodes in one text."""
    found = (Layer(n, "kind", s, tuple(nodes.split())) for n, (s, nodes) in layers.items())
    return Profile(row, 99.0, tuple(found))


BEFORE = profile("old", L1=(3, "conv"), order=(1, ""), L2=(2, "norm relu"), L3=(5, "head"))
AFTER = profile("new", M1=(4, "one"), M2=(1, "relu"), M3=(5, "head"), order=(2, ""))


def test_parts_that_were_rewritten_into_each_other_are_one() -> None:
    assert layer_changes("t", BEFORE, AFTER, TRAINING, REWRITTEN) == (
        LayerChange("t", "", 1, 2, ("order",), ("order",)),
        LayerChange("t", "stage.0", 5, 5, ("L1", "L2"), ("M1", "M2")),
        LayerChange("t", "head", 5, 5, ("L3",), ("M3",)),
    )


def test_what_changed_most_comes_first_and_may_be_on_one_side_only() -> None:
    after = profile("new", M1=(1, "one relu"), M4=(0.5, "unheard_of"))
    assert layer_changes("t", BEFORE, after, TRAINING, REWRITTEN) == (
        LayerChange("t", "head", 5, 0, ("L3",), ()),
        LayerChange("t", "stage.0", 5, 1, ("L1", "L2"), ("M1",)),
        LayerChange("t", "", 1, 0, ("order",), ()),
        LayerChange("t", "", 0, 0.5, (), ("M4",)),
    )


def test_layers_say_where_they_are_what_made_them_and_their_floor() -> None:
    limit = Limit("t", flops=1.0, bytes=2.0)
    one, relu, head, order = described(AFTER, REWRITTEN, TRAINING, limit).layers
    assert (one.place, one.rewrite, one.floor_s) == ("stage.0", "merge-branches", 16)
    assert (relu.place, relu.rewrite, head.place) == ("stage.0", "", "head")
    assert (order.place, order.rewrite, order.floor_s) == ("", "", None)
    shared = profile("new", M1=(4, "one relu"), M2=(1, "relu"))
    assert [x.floor_s for x in described(shared, REWRITTEN, TRAINING, limit).layers] == [None] * 2
    assert described(AFTER, REWRITTEN, TRAINING).layers[0].floor_s is None


class Block(nn.Module):
    """relu(bn(conv3x3) + bn(conv1x1) + bn)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.wide = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.narrow = nn.Conv2d(channels, channels, 1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        branches = self.wide(x), self.narrow(x), x
        return torch.relu(sum(norm(y) for norm, y in zip(self.norms, branches, strict=True)))


@pytest.fixture(scope="module")
def real() -> tuple[flatfold.Optimized, Profile, Profile]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 16, 3, stride=2), Block(16), Block(16)).eval()
    done = flatfold.optimize(net, input_shape=(1, 3, 64, 64), verify="off")
    found = [profiled(row, graph) for row, graph in (("a", done.training), ("b", done.graph))]
    return done, *found


def profiled(row: str, graph: ir.Model) -> Profile:
    with load_backend("ort-cpu").build(graph, {"intra_threads": 1}) as engine:
        (spec,) = engine.inputs
        found = engine.profile({spec.name: np.ones((1, 3, 64, 64), np.float32)}, runs=10)
    assert found is not None
    layers = (Layer(x.name, x.kind, x.seconds, x.nodes) for x in found.layers)
    return Profile(row, found.seconds, tuple(layers))


def test_of_a_real_module_nothing_is_lost(
    real: tuple[flatfold.Optimized, Profile, Profile],
) -> None:
    done, before, after = real
    found = layer_changes("ort-cpu", before, after, done.training, done.graph)
    for side, profile in (("before", before), ("after", after)):
        names = [name for move in found for name in getattr(move, side)]
        assert sorted(names) == sorted(layer.name for layer in profile.layers)
        seconds = math.fsum(getattr(move, f"{side}_s") for move in found)
        assert seconds == pytest.approx(math.fsum(layer.seconds for layer in profile.layers))
    blocks = {move.place: move for move in found}
    assert {"0", "1", "2"} <= set(blocks)
    assert all(len(blocks[name].before) > 1 and len(blocks[name].after) == 1 for name in "12")


def test_of_a_real_module_every_convolution_has_a_place_and_a_floor(
    real: tuple[flatfold.Optimized, Profile, Profile],
) -> None:
    done, _, after = real
    limit = Limit("ort-cpu", flops=1e12, bytes=1e12)
    layers = described(after, done.graph, done.training, limit).layers
    merged = [layer for layer in layers if layer.rewrite]
    assert [layer.place for layer in merged] == ["1", "2"]
    assert all(x.rewrite == "merge-branches" and x.floor_s for x in merged)
    macs = 16 * 16 * 9 * 31 * 31
    assert merged[0].floor_s == pytest.approx(2 * macs / 1e12)
