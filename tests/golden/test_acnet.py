"""Every asymmetric block becomes one convolution, at any padding."""

from __future__ import annotations

import pytest

import flatfold
from flatfold.models.acnet import ACBlock, acnet
from flatfold.models.initialise import initialise
from tests.golden.rows import TABLE

TAIL = {"MaxPool": 1, "ReduceMean": 1, "Reshape": 1, "Gemm": 1}
SHORTCUTS = 3  # with a convolution: where a stage changes the shape


def training_form(blocks: int) -> dict[str, int]:
    """What a network of `blocks` basic blocks has before: two ACBlocks each, stem, shortcuts."""
    convs = 3 * 2 * blocks + 1 + SHORTCUTS
    return {
        "Conv": convs,
        "BatchNormalization": convs,
        "Add": 2 * 2 * blocks + blocks,
        "Relu": 2 * blocks + 1,
        **TAIL,
    }


def deploy_form(blocks: int) -> dict[str, int]:
    """What it has after: the ResNet without its norms."""
    convs = 2 * blocks + 1 + SHORTCUTS
    return {"Conv": convs, "Add": blocks, "Relu": 2 * blocks + 1, **TAIL}


def test_it_becomes_a_resnet18():
    row = TABLE["acnet"]["acnet_resnet18"]
    assert row["before"] == training_form(8)
    assert row["after"] == deploy_form(8)
    resnet18, norms = 11_689_512, 2 * 4800
    biases = 4800 - (128 + 256 + 512)  # a shortcut adds its own to that of the layer it meets
    assert row["parameters"][1] == resnet18 - norms + biases


def test_a_small_one_at_an_odd_size():
    module = acnet(depths=(1, 1, 1, 1), widths=(8, 12, 16, 20), num_classes=10)
    initialise(module, seed=0, gain=0.7)
    done = flatfold.optimize(module.eval(), input_shape=(3, 45, 70), dynamic_batch=True)
    assert done.before.operators == training_form(4)
    assert done.after.operators == deploy_form(4)
    assert done.equivalence.verdict == "certified"


# The pairs of kernel and padding that the authors try; half of them crop or pad beyond K // 2.
PADDINGS = [(3, 1), (3, 0), (5, 1), (5, 2), (5, 3), (5, 4), (5, 6)]
QUICK = [(3, 1, 2), (5, 1, 1)]


@pytest.mark.parametrize(
    ("kernel", "padding", "stride"),
    [
        pytest.param(*pair, stride, marks=() if (*pair, stride) in QUICK else pytest.mark.slow)
        for pair in PADDINGS
        for stride in (1, 2)
    ],
)
def test_a_block_is_one_conv_also_where_its_thin_kernels_read_a_crop(kernel, padding, stride):
    groups = 1 + padding % 2
    block = ACBlock(4, 8, kernel, stride, padding, groups)
    initialise(block, seed=1)
    done = flatfold.optimize(block.eval(), input_shape=(4, 9, 12))
    crops = {"Slice": 2} if padding < kernel // 2 else {}
    assert done.before.operators == {"Conv": 3, "BatchNormalization": 3, "Add": 2, **crops}
    assert done.after.operators == {"Conv": 1}
    assert done.after.parameters == 8 * 4 // groups * kernel**2 + 8
    assert done.equivalence.verdict == "certified"
