"""Every diverse branch block becomes one convolution, exact up to the border."""

from __future__ import annotations

import pytest

import flatfold
from flatfold.models.dbb import DiverseBranchBlock, dbb
from flatfold.models.initialise import initialise
from tests.golden.basic_blocks import deploy_form, require_small, training_form
from tests.golden.rows import TABLE

# Of the six norms of a block two are BNAndPad, which is a Mul, a Pad and an Add.
DENSE = {"Conv": 5, "BatchNormalization": 4, "AveragePool": 1, "Mul": 2, "Pad": 2, "Add": 3 + 2}
DEPTHWISE = {"Conv": 3, "BatchNormalization": 3, "AveragePool": 1, "Mul": 1, "Pad": 1, "Add": 2 + 1}


def test_it_becomes_a_resnet18():
    row = TABLE["dbb"]["dbb_resnet18"]
    assert row["before"] == training_form(8, DENSE)
    assert row["after"] == deploy_form(8)
    assert row["parameters"][1] == TABLE["acnet"]["acnet_resnet18"]["parameters"][1]
    assert row["gmac"][1] == TABLE["acnet"]["acnet_resnet18"]["gmac"][1]


@pytest.mark.slow
def test_a_small_one_at_an_odd_size():
    require_small(dbb, DENSE, gain=0.6)


@pytest.mark.parametrize(
    ("c_in", "c_out", "kernel", "stride", "groups"),
    [
        (4, 6, 3, 2, 2),
        (6, 6, 3, 1, 6),
        pytest.param(4, 6, 3, 1, 1, marks=pytest.mark.slow),
        pytest.param(4, 6, 5, 2, 1, marks=pytest.mark.slow),
        pytest.param(6, 6, 5, 2, 6, marks=pytest.mark.slow),
    ],
)
def test_a_block_is_one_conv(c_in, c_out, kernel, stride, groups):
    block = DiverseBranchBlock(c_in, c_out, kernel, stride, groups)
    initialise(block, seed=1)
    done = flatfold.optimize(block.eval(), input_shape=(c_in, 9, 12), dynamic_batch=True)
    assert done.before.operators == (DEPTHWISE if groups == c_out else DENSE)
    assert done.after.operators == {"Conv": 1}
    assert done.after.parameters == c_out * c_in // groups * kernel**2 + c_out
    assert done.equivalence.verdict == "certified"
