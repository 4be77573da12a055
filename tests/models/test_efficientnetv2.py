"""EfficientNetV2 is the published network: its blocks, names, gates and paddings."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from flatfold.models import list_models
from flatfold.models.efficientnetv2 import (
    ConvBlock,
    InvertedBlock,
    SamePadConv,
    SqueezeExcite,
    Style,
    efficientnetv2,
)
from flatfold.models.initialise import initialise
from tests.models.published import norm, require_round_trip
from tests.models.weightless import on_meta

# Blocks of every stage, as the paper's tables have them.
DEPTHS = {
    "s": (2, 4, 4, 6, 9, 15),
    "m": (3, 5, 5, 7, 14, 18, 5),
    "l": (4, 7, 7, 10, 19, 25, 7),
    "xl": (4, 8, 8, 16, 24, 32, 8),
    "b0": (1, 2, 2, 3, 5, 8),
    "b1": (2, 3, 3, 4, 6, 9),
    "b2": (2, 3, 3, 4, 6, 10),
    "b3": (2, 3, 3, 5, 7, 12),
}
CONVS = {
    "plain": ("conv",),
    "fused": ("conv_exp", "conv_pwl"),
    "inverted": ("conv_pw", "conv_dw", "conv_pwl"),
}
KINDS = ("plain", "fused", "fused", "inverted", "inverted", "inverted", "inverted")


def published_keys(depths: tuple[int, ...]) -> Iterator[str]:
    yield from ("conv_stem.weight", "conv_head.weight", "classifier.weight", "classifier.bias")
    yield from norm("bn1") | norm("bn2")
    for stage, (depth, kind) in enumerate(zip(depths, KINDS, strict=False)):
        for block in range(depth):
            prefix = f"blocks.{stage}.{block}"
            for place, conv in enumerate(CONVS[kind], 1):
                yield f"{prefix}.{conv}.weight"
                yield from norm(f"{prefix}.bn{place}")
            if kind == "inverted":
                for layer in ("reduce", "expand"):
                    yield f"{prefix}.se.conv_{layer}.weight"
                    yield f"{prefix}.se.conv_{layer}.bias"


@pytest.mark.parametrize("name", list_models("*efficientnetv2_*"))
def test_keys_are_those_of_timm(name: str) -> None:
    require_round_trip(name, published_keys(DEPTHS[name.rpartition("_")[2]]))


def test_gates_squeeze_to_a_quarter_of_the_input_of_the_block() -> None:
    network = on_meta("efficientnetv2_s")
    gates = [[block.se.conv_reduce.out_channels for block in stage] for stage in network.blocks[3:]]
    assert gates == [[16] + [32] * 5, [32] + [40] * 8, [40] + [64] * 14]


def test_first_blocks_of_the_stages_take_the_stride() -> None:
    network = on_meta("tf_efficientnetv2_b0")
    strided = {
        name: layer.stride
        for name, layer in network.named_modules()
        if isinstance(layer, nn.Conv2d) and layer.stride != (1, 1)
    }
    assert set(strided.values()) == {(2, 2)}
    assert list(strided) == [
        "conv_stem",
        "blocks.1.0.conv_exp",
        "blocks.2.0.conv_exp",
        "blocks.3.0.conv_dw",
        "blocks.5.0.conv_dw",
    ]
    assert all(isinstance(network.get_submodule(name), SamePadConv) for name in strided)


def test_style_of_the_two_forms() -> None:
    for name, eps, same in (("efficientnetv2_b0", 1e-5, 0), ("tf_efficientnetv2_b0", 1e-3, 5)):
        layers = list(on_meta(name).modules())
        assert {layer.eps for layer in layers if isinstance(layer, nn.BatchNorm2d)} == {eps}
        assert sum(isinstance(layer, SamePadConv) for layer in layers) == same


@pytest.mark.parametrize("size", [(8, 8), (7, 8), (8, 7), (5, 9), (1, 2)])
def test_same_padding_is_tensorflows(size: tuple[int, int]) -> None:
    """An even side is padded at its end alone, an odd one at both ends."""
    conv = SamePadConv(2, 3, 3, stride=2, bias=False)
    initialise(conv, seed=0)
    x = torch.randn(1, 2, *size, generator=torch.Generator().manual_seed(0))
    (top, bottom), (left, right) = ((0, 1) if side % 2 == 0 else (1, 1) for side in size)
    wide = F.pad(x, (left, right, top, bottom))
    expected = F.conv2d(wide, conv.weight, stride=2)
    assert expected.shape[2:] == tuple(-(-side // 2) for side in size)
    assert torch.equal(conv(x), expected)


def test_a_block_that_does_not_expand_adds_after_its_activation() -> None:
    block = ConvBlock(4, 4, 1, Style()).eval()
    initialise(block, seed=0)
    x = torch.randn(2, 4, 6, 5, generator=torch.Generator().manual_seed(0))
    y = block.bn1(block.conv(x))
    torch.testing.assert_close(block(x), x + y * torch.sigmoid(y))


def test_the_gate_is_after_the_depthwise_layer_and_its_activation() -> None:
    block = InvertedBlock(4, 4, 1, 6, Style()).eval()
    initialise(block, seed=0)
    x = torch.randn(2, 4, 6, 5, generator=torch.Generator().manual_seed(0))
    wide = F.silu(block.bn1(block.conv_pw(x)))
    wide = F.silu(block.bn2(block.conv_dw(wide)))
    mean = wide.mean((2, 3), keepdim=True)
    gate = block.se.conv_expand(F.silu(block.se.conv_reduce(mean))).sigmoid()
    assert block.se.conv_reduce.out_channels == 1
    torch.testing.assert_close(block(x), x + block.bn3(block.conv_pwl(wide * gate)))


def test_gates_have_seeded_weights_that_leave_them_near_one_half() -> None:
    gate = SqueezeExcite(16, 4)
    initialise(gate, seed=0)
    x = torch.rand(2, 16, 5, 5, generator=torch.Generator().manual_seed(0)) + 1
    ratio = gate(x) / x
    assert 0.3 < ratio.min() < ratio.max() < 0.7


@pytest.mark.parametrize("tensorflow", [False, True])
def test_map_is_a_32nd_of_the_input(tensorflow: bool) -> None:
    network = efficientnetv2(
        depths=(1,) * 7, widths=(8,) * 7, stem=8, head=16, tensorflow=tensorflow, num_classes=2
    )
    found: list[torch.Size] = []
    pool = network.global_pool
    pool.register_forward_pre_hook(lambda _module, args: found.append(args[0].shape))
    network.eval()(torch.zeros(1, 3, 65, 96))
    assert found == [(1, 16, 3, 3)]
