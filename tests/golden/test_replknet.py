"""Every RepLKNet loses its small kernels and all its BatchNorms, and keeps its shortcuts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import flatfold
from flatfold.models.initialise import initialise
from flatfold.models.replknet import replknet

GOLDEN = json.loads(Path(__file__).with_name("replknet.json").read_text(encoding="utf-8"))
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


def test_the_table_has_every_variant_of_the_zoo():
    assert set(GOLDEN) == set(flatfold.list_models("replknet*"))


@pytest.mark.slow
@pytest.mark.parametrize("name", GOLDEN)
def test_every_norm_and_every_small_kernel_is_folded_for_any_batch(name):
    row = GOLDEN[name]
    done = flatfold.optimize(name, input_shape=(3, 32, 32), dynamic_batch=True)
    assert done.before.operators == training_form(FULL, row["small"])
    assert done.after.operators == deploy_form(FULL)
    assert (done.before.parameters, done.after.parameters) == (row["train"], row["deploy"])
    assert done.equivalence.verdict == "certified"
    assert {label.split()[-1] for label in done.equivalence.inputs} == {"2x3x32x32", "1x3x32x32"}


@pytest.mark.slow
@pytest.mark.parametrize("name", GOLDEN)
def test_the_work_at_its_own_size(name):
    done = flatfold.optimize(name, verify="off")
    gmac = [round(count.macs / 1e9, 3) for count in (done.before, done.after)]
    assert gmac == GOLDEN[name]["gmac"]


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
