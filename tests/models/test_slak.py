"""SLaK is the published network: its layers, names and kernels."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from flatfold.models.initialise import initialise
from flatfold.models.slak import Strips
from tests.models.published import norm, require_round_trip
from tests.models.test_convnext import frame, layer
from tests.models.weightless import on_meta
from tests.rounding import assert_same_sums


def block(prefix: str, strips: tuple[str, str]) -> set[str]:
    keys = set().union(*(layer(f"{prefix}.{name}") for name in ("norm", "pwconv1", "pwconv2")))
    for branch in (*strips, "small_conv"):
        keys |= norm(f"{prefix}.large_kernel.{branch}.bn")
        keys |= {f"{prefix}.large_kernel.{branch}.conv.weight"}
    return keys | {f"{prefix}.gamma"}


@pytest.mark.parametrize("strips", [("LoRA1", "LoRA2"), ("Decom1", "Decom2")])
@pytest.mark.parametrize(("name", "third"), [("slak_tiny", 9), ("slak_base", 27)])
def test_published_checkpoints_load(name: str, third: int, strips: tuple[str, str]) -> None:
    keys = frame()
    for stage, depth in enumerate((3, 3, third, 3)):
        keys = keys.union(*(block(f"stages.{stage}.{i}", strips) for i in range(depth)))
    require_round_trip(name, keys)


def test_kernels() -> None:
    for name, width in (("slak_small", 124), ("slak_base", 166), ("slak_tiny_x1_0", 96)):
        for stage, length in zip(on_meta(name).stages, (51, 49, 47, 13), strict=True):
            kernel = stage[0].large_kernel
            assert kernel.tall.conv.kernel_size == (length, 5)
            assert kernel.wide.conv.kernel_size == (5, length)
            assert kernel.small_conv.conv.kernel_size == (5, 5)
        assert on_meta(name).stages[0][0].large_kernel.tall.conv.groups == width


def test_strips_are_a_cross() -> None:
    module = Strips(3, 9, 5)
    initialise(module, seed=0)
    module.double().eval()
    x = torch.randn(2, 3, 4, 11, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    state, cross, bias = module.state_dict(), torch.zeros(3, 1, 9, 9, dtype=torch.float64), 0.0
    places = {"tall": (0, 2), "wide": (2, 0), "small_conv": (2, 2)}
    for name, (top, left) in places.items():
        bn = {key: state[f"{name}.bn.{key}"] for key in ("weight", "bias")}
        scale = bn["weight"] / (state[f"{name}.bn.running_var"] + 1e-5).sqrt()
        kernel = state[f"{name}.conv.weight"] * scale.view(-1, 1, 1, 1)
        height, width = kernel.shape[2:]
        cross[:, :, top : top + height, left : left + width] += kernel
        bias = bias + bn["bias"] - state[f"{name}.bn.running_mean"] * scale
    terms = 2 * 9 * 5 + 5 * 5 + 3 * 4  # in two strips and a small kernel; their norms
    assert_same_sums(module(x), F.conv2d(x, cross, bias, padding=4, groups=3), terms)
