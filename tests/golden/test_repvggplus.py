"""Every block of RepVGGplus becomes one convolution; the gates behind the activations stay."""

from __future__ import annotations

import flatfold
from flatfold.models.initialise import initialise
from flatfold.models.repvggplus import repvggplus
from tests.golden.rows import TABLE


def training_form(blocks: int, identities: int) -> dict[str, int]:
    """What a network of these blocks has before; `identities` of them keep the shape."""
    return {
        "Conv": 2 * blocks + 2 * blocks,  # of the branches, and of the gates
        "BatchNormalization": 2 * blocks + identities,
        "Add": 2 * blocks,  # one adds 0 where there is no identity branch
        "Relu": 2 * blocks,
        "Sigmoid": blocks,
        "Mul": blocks,
        "ReduceMean": blocks + 1,
        "Reshape": 1,
        "Gemm": 1,
    }


def deploy_form(blocks: int) -> dict[str, int]:
    """What it has after."""
    row = training_form(blocks, 0) | {"Conv": blocks + 2 * blocks}
    del row["BatchNormalization"], row["Add"]
    return row


def test_every_block_becomes_one_conv_and_its_gate():
    row = TABLE["repvggplus"]["repvggplus_l2pse"]
    assert row["before"] == training_form(48, 43)
    assert row["after"] == deploy_form(48)


def test_a_small_one_at_an_odd_size():
    module = repvggplus(depths=(1, 1, 2, 1), widths=(8, 12, 16, 20), num_classes=10)
    initialise(module, seed=0, gain=5.0)
    done = flatfold.optimize(module.eval(), input_shape=(3, 35, 50), dynamic_batch=True)
    assert done.before.operators == training_form(6, 1)
    assert done.after.operators == deploy_form(6)
    assert done.equivalence.verdict == "certified"
