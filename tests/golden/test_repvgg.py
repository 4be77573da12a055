"""Every RepVGG reaches its published deploy form: counts, parameters, work, same outputs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import flatfold
from flatfold.resolve import resolve
from flatfold.summary import summarise

GOLDEN = json.loads(Path(__file__).with_name("repvgg.json").read_text(encoding="utf-8"))
QUICK = ("repvgg_a0", "repvgg_b0", "repvgg_b1g4")
NAMES = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in GOLDEN]


def test_the_table_has_every_variant_of_the_zoo():
    assert set(GOLDEN) == set(flatfold.list_models("repvgg*"))


@pytest.mark.parametrize("name", NAMES)
def test_training_form_becomes_one_conv_per_block_for_any_batch(name):
    row = GOLDEN[name]
    blocks, identities, gated = row["blocks"], row["identities"], name == "repvgg_d2se"
    done = flatfold.optimize(name, input_shape=(3, 64, 64), dynamic_batch=True)
    train, deploy = done.before.operators, done.after.operators
    gates = 2 * blocks if gated else 0
    assert train["Conv"] == 2 * blocks + gates
    assert train["BatchNormalization"] == 2 * blocks + identities
    assert deploy["Conv"] == blocks + gates
    assert deploy["Relu"] == blocks * (2 if gated else 1)
    assert deploy.get("Sigmoid", 0) == (blocks if gated else 0)
    assert deploy["Gemm"] == 1
    assert "BatchNormalization" not in deploy
    assert "Add" not in deploy
    assert (done.before.parameters, done.after.parameters) == (row["train"], row["deploy"])
    assert done.equivalence.verdict == "certified"
    assert done.equivalence.regions == blocks
    assert {label.split()[-1] for label in done.equivalence.inputs} == {"2x3x64x64", "1x3x64x64"}


def test_the_work_of_a0_at_its_own_size():
    done = flatfold.optimize("repvgg_a0", verify="off")
    gmac = [round(count.macs / 1e9, 3) for count in (done.before, done.after)]
    assert gmac == GOLDEN["repvgg_a0"]["gmac"]


@pytest.mark.slow
@pytest.mark.parametrize("name", GOLDEN)
def test_the_work_of_every_variant_at_its_own_size(name):
    done = flatfold.optimize(name, verify="off")
    gmac = [round(count.macs / 1e9, 3) for count in (done.before, done.after)]
    assert gmac == GOLDEN[name]["gmac"]


def test_optimizing_twice_changes_nothing():
    done = flatfold.optimize("repvgg_a0", input_shape=(3, 32, 32))
    again = flatfold.optimize(done.model)
    assert not [remark for remark in again.remarks if remark.applied]
    assert again.model.SerializeToString() == done.model.SerializeToString()


def test_a_node_leads_back_to_the_branches_it_came_from():
    done = flatfold.optimize("repvgg_a0", input_shape=(3, 32, 32), verify="off")
    convs = [node for node in done.graph.graph if node.op_type == "Conv"]
    originals = {node.name for node in resolve("repvgg_a0").model.graph}
    for conv in convs:
        assert conv.metadata_props["flatfold.rewrite"] == "merge-branches"
        assert set(json.loads(conv.metadata_props["flatfold.replaced"])) <= originals
    assert summarise(done.graph).operators["Conv"] == len(convs)
