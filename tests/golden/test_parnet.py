"""Every ParNet block becomes one convolution beside its gate; the norms behind a gate must stay."""

from __future__ import annotations

import pytest

import flatfold
from flatfold.models.initialise import initialise
from flatfold.models.parnet import ParNetBlock, parnet
from tests.golden.rows import TABLE

FULL = (4, 5, 5)
OTHERS, STRIDED, FUSIONS = 8, 7, 2  # blocks outside the streams


def training_form(depths: tuple[int, ...], activation: str = "silu") -> dict[str, int]:
    """What a network with these streams has before."""
    streams = sum(depths)
    blocks = streams + OTHERS
    silu = blocks if activation == "silu" else 0
    return {
        "Conv": 3 * blocks,
        "BatchNormalization": 3 * streams + 2 * OTHERS + 2 * FUSIONS,
        "Add": 2 * streams + OTHERS,
        "AveragePool": STRIDED,
        "ReduceMean": blocks + 1,
        "Sigmoid": blocks + silu,
        "Mul": streams + 2 * OTHERS + silu,  # outside the streams a gate is doubled
        **({} if silu else {"Relu": blocks}),
        **shuffles(),
        "Gemm": 1,
    }


def deploy_form(depths: tuple[int, ...], activation: str = "silu") -> dict[str, int]:
    """What it has after. In a stream BN(x) feeds a gate; in a fusion the border forbids a fold."""
    streams = sum(depths)
    blocks = streams + OTHERS
    row = training_form(depths, activation)
    row |= {"Conv": 2 * blocks, "BatchNormalization": streams + 2 * FUSIONS, "Add": streams}
    row["Mul"] -= OTHERS
    del row["AveragePool"]
    return row


def shuffles() -> dict[str, int]:
    """Each fusion lets the channels of its operands alternate, and shuffles what it makes."""
    return {"Reshape": 4 * FUSIONS, "Transpose": 2 * FUSIONS, "Concat": FUSIONS}


@pytest.mark.parametrize("name", TABLE["parnet"])
def test_every_block_becomes_one_conv_and_its_gate(name):
    row = TABLE["parnet"][name]
    assert row["before"] == training_form(FULL)
    assert row["after"] == deploy_form(FULL)


def small(activation: str):
    module = parnet(
        widths=(8, 12, 16), last=24, depths=(1, 1, 1), activation=activation, num_classes=10
    )
    initialise(module, seed=0, gain=1.7)
    return module.eval()


@pytest.mark.parametrize("activation", ["silu", pytest.param("relu", marks=pytest.mark.slow)])
def test_a_small_one_at_a_size_that_is_not_square(activation):
    done = flatfold.optimize(small(activation), input_shape=(3, 96, 64), dynamic_batch=True)
    assert done.before.operators == training_form((1, 1, 1), activation)
    assert done.after.operators == deploy_form((1, 1, 1), activation)
    assert done.equivalence.verdict == "certified"


@pytest.mark.parametrize("groups", [1, 2])
def test_the_means_of_a_strided_block_are_taps_of_its_kernel(groups):
    block = ParNetBlock(8, 12, 2, "silu", groups)
    initialise(block, seed=1)
    done = flatfold.optimize(block.eval(), input_shape=(8, 6, 10))
    shuffle = {"Reshape": 2, "Transpose": 1} if groups > 1 else {}
    assert done.after.operators == {
        "Conv": 2,
        "ReduceMean": 1,
        "Sigmoid": 2,
        "Mul": 2,
        **shuffle,
    }
    assert done.equivalence.verdict == "certified"
