"""Every RepVGG reaches its published deploy form: one convolution for each block."""

from __future__ import annotations

import json

import pytest

import flatfold
from flatfold.result import summarise
from flatfold.sources import resolve
from tests.golden.rows import TABLE

BLOCKS = {"a": (22, 17), "b": (28, 23), "d": (48, 43)}  # and of these with an identity branch


@pytest.mark.parametrize("name", TABLE["repvgg"])
def test_every_block_becomes_one_conv(name):
    blocks, identities = BLOCKS[name.removeprefix("repvgg_")[0]]
    gates = blocks if name.endswith("se") else 0
    tail = {"ReduceMean": 1 + gates, "Reshape": 1, "Gemm": 1}
    gate = {"Sigmoid": gates, "Mul": gates} if gates else {}
    convs, relus = 2 * gates, blocks + gates
    assert TABLE["repvgg"][name]["before"] == {
        "Conv": 2 * blocks + convs,
        "BatchNormalization": 2 * blocks + identities,
        "Add": 2 * blocks,  # one adds 0 where there is no identity branch
        "Relu": relus,
        **gate,
        **tail,
    }
    deployed = {"Conv": blocks + convs, "Relu": relus, **gate, **tail}
    assert TABLE["repvgg"][name]["after"] == deployed


@pytest.fixture(scope="module")
def exported():
    return resolve("repvgg_a0", input_shape=(3, 32, 32)).model


@pytest.fixture(scope="module")
def done(exported):
    return flatfold.optimize(exported, verify="off")


def test_optimizing_twice_changes_nothing(done):
    again = flatfold.optimize(done.model, verify="off")
    assert not [remark for remark in again.remarks if remark.applied]
    assert again.model.SerializeToString() == done.model.SerializeToString()


def test_a_node_leads_back_to_the_branches_it_came_from(done, exported):
    convs = [node for node in done.graph.graph if node.op_type == "Conv"]
    originals = {node.name for node in exported.graph}
    for conv in convs:
        assert conv.metadata_props["flatfold.rewrite"] == "merge-branches"
        assert set(json.loads(conv.metadata_props["flatfold.replaced"])) <= originals
    assert summarise(done.graph).operators["Conv"] == len(convs)
