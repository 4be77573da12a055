"""Every RepLKNet loses its small kernels and all its BatchNorms, and keeps its shortcuts."""

from __future__ import annotations

import pytest

import flatfold
from flatfold.models.initialise import initialise
from flatfold.models.replknet import replknet
from tests.golden.rows import TABLE

TAIL = {"Gemm": 1, "ReduceMean": 1, "Reshape": 1}
FULL = (2, 2, 18, 2)


def training_form(depths: tuple[int, ...], small: bool) -> dict[str, int]:
    """What a network with these stages has before: stem, transitions, pairs of blocks, head."""
    pairs, joints = sum(depths), 2 * (len(depths) - 1)
    return {
        "Conv": 4 + joints + (5 + small) * pairs,
        "BatchNormalization": 4 + joints + (7 + small) * pairs + 1,
        "Relu": 4 + joints + 2 * pairs,
        "Gelu": pairs,
        "Add": (2 + small) * pairs,
        **TAIL,
    }


def deploy_form(depths: tuple[int, ...]) -> dict[str, int]:
    """What it has after: no BatchNorm, nothing in its place, and one Add for each shortcut."""
    pairs, joints = sum(depths), 2 * (len(depths) - 1)
    return {
        "Conv": 4 + joints + 5 * pairs,
        "Relu": 4 + joints + 2 * pairs,
        "Gelu": pairs,
        "Add": 2 * pairs,
        **TAIL,
    }


@pytest.mark.parametrize("name", TABLE["replknet"])
def test_every_norm_and_every_small_kernel_is_folded(name):
    row = TABLE["replknet"][name]
    assert row["before"] == training_form(FULL, small=name != "replknet_xl")
    assert row["after"] == deploy_form(FULL)


@pytest.mark.parametrize("small", [3, None])
def test_a_small_one_with_kernels_larger_than_its_maps(small):
    module = replknet(
        widths=(8, 12, 16, 24),
        kernels=(13, 11, 9, 7),
        depths=(1, 1, 2, 1),
        small=small,
        inner_ratio=1.5,
        num_classes=10,
    )
    initialise(module, seed=0, gain=2.0)
    done = flatfold.optimize(module.eval(), input_shape=(3, 49, 70), dynamic_batch=True)
    assert done.before.operators == training_form((1, 1, 2, 1), small is not None)
    assert done.after.operators == deploy_form((1, 1, 2, 1))
    assert done.equivalence.verdict == "certified"
