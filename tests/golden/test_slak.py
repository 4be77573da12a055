"""Every SLaK loses its small kernels and all BatchNorms; two strips or one kernel are left."""

from __future__ import annotations

import pytest

import flatfold
from flatfold.models import ZOO
from flatfold.models.initialise import initialise
from flatfold.models.slak import slak
from tests.golden import test_convnext as convnext
from tests.golden.rows import TABLE


def training_form(depths: tuple[int, ...]) -> dict[str, int]:
    """A ConvNeXt with three convolutions and their norms for each of its depthwise ones."""
    blocks, before = sum(depths), convnext.training_form(depths)
    return {
        **before,
        "Conv": before["Conv"] + 2 * blocks,
        "BatchNormalization": 3 * blocks,
        "Add": before["Add"] + 2 * blocks,
    }


def deploy_form(depths: tuple[int, ...], split: int, moved: int) -> dict[str, int]:
    """A ConvNeXt with two strips and their sum for `split` of its depthwise convolutions."""
    after = convnext.deploy_form(depths, moved)
    return {**after, "Conv": after["Conv"] + split, "Add": after["Add"] + split}


@pytest.mark.parametrize("name", TABLE["slak"])
def test_every_norm_and_every_small_kernel_is_folded(name):
    row, depths = TABLE["slak"][name], ZOO[name].kwargs["depths"]
    moved = 2 * sum(depths) - row["after"]["MatMul"]
    split = row["after"]["Conv"] - convnext.deploy_form(depths, moved)["Conv"]
    assert row["before"] == training_form(depths)
    assert row["after"] == deploy_form(depths, split, moved)
    assert split == sum(depths)


def small(lengths: tuple[int, ...]):
    module = slak(widths=(8, 12), depths=(1, 1), lengths=lengths, strip=5, num_classes=10)
    initialise(module, seed=0)
    return module.eval()


def test_strips_longer_than_the_map_stay_two():
    done = flatfold.optimize(small((51, 49)), input_shape=(3, 61, 52), dynamic_batch=True)
    assert done.before.operators == training_form((1, 1))
    assert done.after.operators == deploy_form((1, 1), split=2, moved=2)
    assert done.equivalence.verdict == "certified"


def test_short_strips_on_a_small_map_are_one_kernel():
    done = flatfold.optimize(small((9, 7)), input_shape=(3, 29, 38))
    assert done.after.operators == deploy_form((1, 1), split=0, moved=2)
    assert done.equivalence.verdict == "certified"
