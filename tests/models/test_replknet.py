"""RepLKNet is the published network: its layers, names and kernels."""

from __future__ import annotations

import torch
from torch import nn

from flatfold.models.initialise import initialise
from flatfold.models.layers import LargeKernel
from flatfold.models.replknet import RepLKBlock, replknet
from tests.models.weightless import on_meta
from tests.rounding import assert_same_sums


def test_keys_are_those_of_the_published_checkpoints() -> None:
    keys = on_meta("replknet_31b").state_dict()
    assert {"stem.0.conv.weight", "stem.3.bn.running_var", "norm.bias", "head.bias"} <= set(keys)
    block = "stages.2.blocks.34"
    assert {f"{block}.prelkb_bn.weight", f"{block}.pw1.conv.weight"} <= set(keys)
    assert {f"{block}.large_kernel.lkb_origin.bn.bias", f"{block}.pw2.bn.bias"} <= set(keys)
    assert f"{block}.large_kernel.small_conv.conv.weight" in keys
    assert {"stages.3.blocks.3.preffn_bn.bias", "stages.3.blocks.3.pw2.bn.bias"} <= set(keys)
    assert {"transitions.0.0.conv.weight", "transitions.2.1.bn.weight"} <= set(keys)
    assert len(keys) == 154 + 203 * 5 + 2


def test_kernels_of_every_stage() -> None:
    for name, kernels, small in (
        ("replknet_31b", (31, 29, 27, 13), 5),
        ("replknet_31l", (31, 29, 27, 13), 5),
        ("replknet_xl", (27, 27, 27, 13), None),
    ):
        stages = on_meta(name).stages
        assert [len(stage.blocks) for stage in stages] == [4, 4, 36, 4]
        for stage, kernel in zip(stages, kernels, strict=True):
            for block in list(stage.blocks)[::2]:
                large = block.large_kernel.lkb_origin.conv
                assert large.kernel_size == (kernel, kernel) and large.groups == large.in_channels
                assert (block.large_kernel.small_conv is None) == (small is None)
                if small is not None:
                    assert block.large_kernel.small_conv.conv.kernel_size == (small, small)


def test_large_kernels_of_xl_have_half_as_many_channels_again() -> None:
    blocks = [x for x in on_meta("replknet_xl").modules() if isinstance(x, RepLKBlock)]
    assert {(x.prelkb_bn.num_features, x.pw1.conv.out_channels) for x in blocks} == {
        (width, width * 3 // 2) for width in (256, 512, 1024, 2048)
    }


def test_both_kernels_are_centred_on_the_same_pixel() -> None:
    layer = LargeKernel(2, 2, 7, 3).eval()
    x = torch.randn(1, 2, 5, 6, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        nn.init.zeros_(layer.lkb_origin.conv.weight)[:, :, 3, 3] = 2.0
        nn.init.zeros_(layer.small_conv.conv.weight)[:, :, 1, 1] = 3.0
        expected = 5 * x / (1 + layer.lkb_origin.bn.eps) ** 0.5
        assert_same_sums(layer(x), expected, 7 * 7 + 3 * 3 + 2 * 4)  # two kernels, two norms


def test_map_is_a_32nd_of_the_input() -> None:
    network = replknet(widths=(4, 6, 8, 10), kernels=(9, 7, 5, 3), depths=(1, 1, 1, 1), small=3)
    initialise(network, seed=0)
    found: list[torch.Size] = []
    network.norm.register_forward_hook(lambda _module, _args, y: found.append(y.shape))
    network.eval()(torch.zeros(1, 3, 96, 70))
    assert found == [(1, 10, 3, 3)]
