"""Every MobileOne reaches its published deploy form: one convolution for each block."""

from __future__ import annotations

import pytest

import flatfold
from flatfold.models.initialise import initialise
from flatfold.models.mobileone import mobileone
from tests.golden.rows import TABLE

TAIL = {"Gemm": 1, "Reshape": 1}


def gates(count: int) -> dict[str, int]:
    """Operators of `count` squeeze-and-excites but for their two convolutions."""
    means = {"ReduceMean": 1 + count}  # one is that of the head
    return {**means, "Sigmoid": count, "Mul": count} if count else means


def training_form(pairs: int, branches: int, skips: int, gated: int = 0) -> dict[str, int]:
    """What a stem and `pairs` of a depthwise and a 1x1 block have before.

    `skips` blocks have a BatchNorm beside their convolutions. The stem and each depthwise block
    have one 1x1 that scales, the 1x1 blocks have not.
    """
    sums = 1 + branches * 2 * pairs + (1 + pairs)
    blocks = 1 + 2 * pairs
    return {
        "Conv": sums + 2 * gated,
        "BatchNormalization": sums + skips,
        "Add": sums + skips - blocks,
        "Relu": blocks + gated,
        **gates(gated),
        **TAIL,
    }


def deploy_form(pairs: int, gated: int = 0) -> dict[str, int]:
    """What it has after."""
    blocks = 1 + 2 * pairs
    return {"Conv": blocks + 2 * gated, "Relu": blocks + gated, **gates(gated), **TAIL}


@pytest.mark.parametrize("name", TABLE["mobileone"])
def test_every_block_becomes_one_conv(name):
    branches = 4 if name == "mobileone_s0" else 1
    # All but the first of each stage; the stem of S0 is as wide as its first stage.
    skips = 2 * (21 - 4) + (name == "mobileone_s0")
    gated = 12 if name == "mobileone_s4" else 0
    row = TABLE["mobileone"][name]
    assert row["before"] == training_form(21, branches, skips, gated)
    assert row["after"] == deploy_form(21, gated)


def test_a_small_one_with_gates_at_an_odd_size():
    module = mobileone(
        widths=(16, 16, 24, 24),
        depths=(1, 2, 1, 1),
        branches=2,
        gated=(0, 1, 0, 0),
        num_classes=10,
    )
    initialise(module, seed=0)
    done = flatfold.optimize(module.eval(), input_shape=(3, 49, 70), dynamic_batch=True)
    # One depthwise block of the second stage, and each 1x1 block but that from 16 to 24 channels.
    assert done.before.operators == training_form(5, 2, skips=1 + 4, gated=2)
    assert done.after.operators == deploy_form(5, gated=2)
    assert done.equivalence.verdict == "certified"
