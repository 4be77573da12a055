"""VanillaNet is the published network: its layers, names, pools and activation."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from flatfold.models.initialise import initialise
from flatfold.models.vanillanet import VanillaNet, vanillanet
from tests.models.weightless import on_meta
from tests.rounding import assert_same_sums


def small(slope: float = 1.0) -> VanillaNet:
    """Four layers, with weights that hide nothing."""
    module = vanillanet(widths=(8, 12, 16), pools=(2, 3), slope=slope, num_classes=5)
    initialise(module, seed=0, gain=1.7)
    return module.eval()


def images(size: int) -> torch.Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))


def test_keys_are_those_of_the_published_checkpoints() -> None:
    keys = on_meta("vanillanet_5").state_dict()
    assert {"stem1.0.bias", "stem2.1.running_var", "stem2.2.weight", "stem2.2.bn.bias"} <= set(keys)
    assert {"stages.2.conv1.0.weight", "stages.2.conv2.1.bias"} <= set(keys)
    assert {"stages.0.act.weight", "stages.0.act.bn.running_mean"} <= set(keys)
    assert {"cls1.2.weight", "cls1.3.weight", "cls2.0.bias"} <= set(keys)
    assert keys["stages.0.act.weight"].shape == (1024, 1, 7, 7)
    assert len(keys) == 14 + 10 + 13 * 5  # weights; biases, but of no series; BatchNorms


def test_every_norm_has_the_published_epsilon() -> None:
    norms = [x for x in on_meta("vanillanet_13").modules() if isinstance(x, nn.BatchNorm2d)]
    assert [norm.eps for norm in norms] == [1e-6] * 37


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("vanillanet_5", [28, 14, 7]),
        ("vanillanet_7", [56, 28, 14, 7, 7]),
        ("vanillanet_13_x1_5_ada_pool", [75, 38, 19, *[19] * 6, 10, 10]),
    ],
)
def test_sizes_of_the_maps(name: str, sizes: list[int]) -> None:
    network, found = on_meta(name), []
    for stage in network.stages:
        stage.register_forward_hook(lambda _module, _args, y: found.append(y.shape[-1]))
    network.eval()(torch.empty(1, 3, 224, 224, device="meta"))
    assert found == sizes


@pytest.mark.parametrize(("width", "size", "pooled"), [(3, 75, 38), (2, 38, 19), (3, 19, 10)])
def test_pools_are_the_adaptive_ones_of_the_published_network(
    width: int, size: int, pooled: int
) -> None:
    network = vanillanet(widths=(4, 4), pools=(width,), num_classes=2)
    x = torch.randn(1, 4, size, size, generator=torch.Generator().manual_seed(0))
    assert torch.equal(network.stages[0].pool(x), nn.AdaptiveMaxPool2d(pooled)(x))


def test_slope_moves_the_activation_from_relu_to_identity() -> None:
    network, x = small(slope=0.0), images(32)
    inner = {"stem": network.stem1, "stage": network.stages[1].conv1, "head": network.cls1}
    seen: dict[str, torch.Tensor] = {}
    for name, layer in inner.items():
        layer.register_forward_hook(lambda _module, _args, y, name=name: seen.update({name: y}))
    read: dict[str, torch.Tensor] = {}
    outer = {"stem": network.stem2, "stage": network.stages[1].conv2, "head": network.cls2}
    for name, layer in outer.items():
        layer.register_forward_pre_hook(lambda _m, args, name=name: read.update({name: args[0]}))
    for slope in (0.0, 0.25, 1.0):
        network.slope = slope
        network(x)
        for name, value in seen.items():
            assert (value < 0).any()
            assert torch.equal(read[name], torch.where(value < 0, slope * value, value)), name


def test_series_weighs_what_is_positive_in_its_window() -> None:
    act, x = small().stages[0].act, images(9).repeat(1, 4, 1, 1)
    windows = nn.functional.unfold(x.clamp(min=0), 7, padding=3).view(2, 12, 49, 81)
    summed = (windows * act.weight.view(1, 12, 49, 1)).sum(2).view(2, 12, 9, 9)
    assert_same_sums(act(x), act.bn(summed), 7 * 7 + 4)  # and a norm
