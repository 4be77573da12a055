"""Every asymmetric block becomes one convolution, at any padding."""

from __future__ import annotations

import pytest

import flatfold
from flatfold.models.acnet import ACBlock, acnet
from flatfold.models.initialise import initialise
from tests.golden.basic_blocks import deploy_form, require_small, training_form
from tests.golden.rows import TABLE

LAYER = {"Conv": 3, "BatchNormalization": 3, "Add": 2}


def test_it_becomes_a_resnet18():
    row = TABLE["acnet"]["acnet_resnet18"]
    assert row["before"] == training_form(8, LAYER)
    assert row["after"] == deploy_form(8)
    resnet18, norms = 11_689_512, 2 * 4800
    biases = 4800 - (128 + 256 + 512)  # a shortcut adds its own to that of the layer it meets
    assert row["parameters"][1] == resnet18 - norms + biases


def test_a_small_one_at_an_odd_size():
    require_small(acnet, LAYER, gain=0.7)


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
    assert done.before.operators == {**LAYER, **crops}
    assert done.after.operators == {"Conv": 1}
    assert done.after.parameters == 8 * 4 // groups * kernel**2 + 8
    assert done.equivalence.verdict == "certified"
