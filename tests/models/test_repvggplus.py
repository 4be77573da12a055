"""RepVGGplus is the published network without its auxiliary classifiers."""

from __future__ import annotations

import torch

from flatfold.models.initialise import initialise
from flatfold.models.repvggplus import RepVGGplusBlock
from tests.models.published import norm, require_round_trip
from tests.models.weightless import on_meta
from tests.rounding import assert_same_sums

DEPTHS = {"stage1": 8, "stage2": 14, "stage3_first": 12, "stage3_second": 12, "stage4": 1}
AUXILIARY = {"stage1_aux": 160, "stage2_aux": 320, "stage3_first_aux": 640}


def test_published_keys_fill_the_network() -> None:
    keys = {"linear.weight", "linear.bias"}
    blocks = {"stage0": False}
    for stage, depth in DEPTHS.items():
        for i in range(depth):
            blocks[f"{stage}.blocks.{i}"] = i > 0 or stage == "stage3_second"
    for block, identity in blocks.items():
        for branch in ("rbr_dense", "rbr_1x1"):
            keys |= {f"{block}.{branch}.conv.weight", *norm(f"{block}.{branch}.bn")}
        for layer in ("down", "up"):
            keys |= {f"{block}.post_se.{layer}.weight", f"{block}.post_se.{layer}.bias"}
        keys |= norm(f"{block}.rbr_identity") if identity else set()
    for head in AUXILIARY:
        keys |= {f"{head}.0.conv.weight", *norm(f"{head}.0.bn")}
        keys |= {f"{head}.3.weight", f"{head}.3.bias"}
    require_round_trip("repvggplus_l2pse", keys)


def test_parameters_are_the_published_ones_without_three_classifiers() -> None:
    trunk = sum(p.numel() for p in on_meta("repvggplus_l2pse").parameters())
    heads = sum(9 * c * c + 2 * c + 1000 * c + 1000 for c in AUXILIARY.values())
    assert trunk + heads == 146_062_864


def test_gate_comes_after_the_activation() -> None:
    block = RepVGGplusBlock(8, 8, 1).eval()
    initialise(block, seed=0)
    x = torch.randn(2, 8, 5, 6, generator=torch.Generator().manual_seed(0))
    y = (block.rbr_dense(x) + block.rbr_1x1(x) + block.rbr_identity(x)).relu()
    down, up = block.post_se.down, block.post_se.up
    hidden = (y.mean((2, 3)) @ down.weight.flatten(1).T + down.bias).relu()
    gate = torch.sigmoid(hidden @ up.weight.flatten(1).T + up.bias)[..., None, None]
    assert down.out_channels == 2  # a quarter
    # 3x3, 1x1 and three norms; mean over the map; two layers of the gate.
    assert_same_sums(block(x), y * gate, (9 * 8 + 8 + 3 * 4) + 5 * 6 + (8 + 2))
