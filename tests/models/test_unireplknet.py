"""UniRepLKNet is the published network: its layers, names and kernels."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from flatfold.models.initialise import initialise
from flatfold.models.unireplknet import DILATED, DilatedReparam
from tests.models.published import norm, require_round_trip
from tests.models.test_convnext import layer
from tests.models.weightless import on_meta


def strided(stages: int = 4) -> set[str]:
    """The published keys of ways down by 3x3 convolutions, and of the head."""
    places = {"0.0", "0.1", "0.3", "0.4", *(f"{i}.{j}" for i in range(1, stages) for j in (0, 1))}
    joints = {f"downsample_layers.{place}" for place in places}
    return set().union(*(layer(prefix) for prefix in (*joints, "norm", "head")))


def gated(prefix: str) -> set[str]:
    """The published keys of the second half of a block."""
    names = ("se.down", "se.up", "pwconv1.1")
    keys = set().union(*(layer(f"{prefix}.{name}") for name in names))
    keys |= {f"{prefix}.{name}" for name in ("act.1.gamma", "act.1.beta", "pwconv2.0.weight")}
    return keys | norm(f"{prefix}.norm") | norm(f"{prefix}.pwconv2.2") | {f"{prefix}.gamma"}


def block(prefix: str, kernel: int) -> set[str]:
    if kernel == 3:
        return gated(prefix) | {f"{prefix}.dwconv.weight"}
    keys = {f"{prefix}.dwconv.lk_origin.weight"} | norm(f"{prefix}.dwconv.origin_bn")
    for branch in ("k5_1", "k7_2", "k3_3", "k3_4", "k3_5"):
        keys |= {f"{prefix}.dwconv.dil_conv_{branch}.weight"}
        keys |= norm(f"{prefix}.dwconv.dil_bn_{branch}")
    return gated(prefix) | keys


@pytest.mark.parametrize(
    ("name", "kernels"),
    [
        ("unireplknet_a", ([3] * 2, [13] * 2, [13] * 6, [13] * 2)),
        ("unireplknet_n", ([3] * 2, [13] * 2, [13] * 8, [13] * 2)),
        ("unireplknet_t", ([3] * 3, [13] * 3, [13, 3] * 9, [13] * 3)),
        ("unireplknet_s", ([3] * 3, [13] * 3, [13, 3, 3] * 9, [13] * 3)),
    ],
)
def test_published_checkpoints_load(name: str, kernels: tuple[list[int], ...]) -> None:
    keys = strided()
    for stage, of_stage in enumerate(kernels):
        for i, kernel in enumerate(of_stage):
            keys |= block(f"stages.{stage}.{i}", kernel)
    require_round_trip(name, keys)
    shapes = on_meta(name).state_dict()
    assert shapes["stages.0.0.act.1.gamma"].shape == (1, 1, 1, 4 * len(shapes["stages.0.0.gamma"]))


@pytest.mark.parametrize("kernel", DILATED)
def test_no_dilated_kernel_reaches_beyond_the_large_one(kernel: int) -> None:
    module = DilatedReparam(2, kernel)
    for branch in module.dilated.values():
        (size, _), (rate, _) = branch.conv.kernel_size, branch.conv.dilation
        assert branch.conv.padding == (rate * (size - 1) // 2,) * 2
        assert rate * (size - 1) + 1 <= kernel


def test_dilated_reparam_is_its_equation() -> None:
    module = DilatedReparam(3, 13)
    initialise(module, seed=0)
    module.double().eval()
    x = torch.randn(2, 3, 9, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    state = module.state_dict()
    expected = torch.zeros_like(x)
    parts = {"large": 1, **{f"dilated.k{k}_{r}": r for k, r in DILATED[13]}}
    for prefix, rate in parts.items():
        weight = state[f"{prefix}.conv.weight"]
        far = rate * (weight.shape[-1] - 1)
        full = torch.zeros(3, 1, far + 1, far + 1, dtype=torch.float64)  # gaps written out
        full[:, :, ::rate, ::rate] = weight
        y = F.conv2d(x, full, padding=far // 2, groups=3)
        names = ("running_mean", "running_var", "weight", "bias")
        expected += F.batch_norm(y, *(state[f"{prefix}.bn.{name}"] for name in names))
    torch.testing.assert_close(module(x), expected)
