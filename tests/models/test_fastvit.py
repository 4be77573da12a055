"""FastViT is the published network: its layers, names, kernels and attention."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from flatfold.models.fastvit import Attention, PatchEmbed, RepMixer, fastvit
from flatfold.models.initialise import initialise
from tests.models.published import norm, require_round_trip
from tests.models.weightless import on_meta
from tests.rounding import assert_same_sums


def layer(prefix: str, bias: bool = True) -> set[str]:
    return {f"{prefix}.weight"} | ({f"{prefix}.bias"} if bias else set())


def conv_bn(prefix: str) -> set[str]:
    return {*layer(f"{prefix}.conv", bias=False), *norm(f"{prefix}.bn")}


def mobileone(prefix: str, scaled: bool, skips: bool) -> set[str]:
    keys = conv_bn(f"{prefix}.rbr_conv.0")
    keys |= conv_bn(f"{prefix}.rbr_scale") if scaled else set()
    return keys | (norm(f"{prefix}.rbr_skip") if skips else set())


def block(prefix: str, attends: bool) -> set[str]:
    ffn = f"{prefix}.convffn"
    keys = conv_bn(f"{ffn}.conv") | layer(f"{ffn}.fc1") | layer(f"{ffn}.fc2")
    mixer = f"{prefix}.token_mixer"
    if attends:
        keys |= norm(f"{prefix}.norm") | layer(f"{mixer}.qkv", bias=False) | layer(f"{mixer}.proj")
        return keys | {f"{prefix}.layer_scale_1", f"{prefix}.layer_scale_2"}
    keys |= mobileone(f"{mixer}.mixer", True, True) | norm(f"{mixer}.norm.rbr_skip")
    return keys | {f"{mixer}.layer_scale", f"{prefix}.layer_scale"}


def published(depths: tuple[int, ...], attends: bool) -> Iterator[str]:
    """The keys of the authors' file."""
    for i, (scaled, skips) in enumerate([(True, False), (True, False), (False, True)]):
        yield from mobileone(f"patch_embed.{i}", scaled, skips)
    places = [0, 2, 4, 7 if attends else 6]  # of the stages; between them one way down each
    for stage, depth in enumerate(depths):
        for i in range(depth):
            yield from block(f"network.{places[stage]}.{i}", attends and stage == 3)
    for place in (1, 3, 5):
        for kernel in ("lkb_origin", "small_conv"):
            yield from conv_bn(f"network.{place}.proj.0.{kernel}")
        yield from mobileone(f"network.{place}.proj.1", False, True)
    if attends:
        yield from layer("network.6.pe")
    yield from mobileone("conv_exp", True, False)
    yield from layer("conv_exp.se.reduce") | layer("conv_exp.se.expand") | layer("head")


@pytest.mark.parametrize(
    ("name", "depths", "attends"),
    [("fastvit_t8", (2, 2, 4, 2), False), ("fastvit_sa12", (2, 2, 6, 2), True)],
)
def test_checkpoints_with_the_published_keys_load(
    name: str, depths: tuple[int, ...], attends: bool
) -> None:
    require_round_trip(name, published(depths, attends))


def test_layer_scales_start_small() -> None:
    for scale in (1e-5, 1e-6):
        network = fastvit(widths=(4, 8, 16, 32), depths=(1, 1, 1, 1), attention=True, scale=scale)
        scales = [p for name, p in network.named_parameters() if "layer_scale" in name]
        assert len(scales) == 8
        assert all(torch.equal(p, torch.full_like(p, scale)) and p.ndim == 3 for p in scales)


def test_the_mixer_adds_a_scaled_difference() -> None:
    mixer = RepMixer(6, 1e-5)
    initialise(mixer, seed=0)
    mixer.eval()
    x = torch.randn(2, 6, 5, 7, generator=torch.Generator().manual_seed(1))
    branches = mixer.mixer

    def bn(y: torch.Tensor, by: nn.BatchNorm2d) -> torch.Tensor:
        mean, var = by.running_mean.view(-1, 1, 1), by.running_var.view(-1, 1, 1)
        y = (y - mean) / torch.sqrt(var + 1e-5)
        return y * by.weight.view(-1, 1, 1) + by.bias.view(-1, 1, 1)

    local = nn.functional.conv2d(x, branches.rbr_conv[0].conv.weight, padding=1, groups=6)
    mixed = bn(local, branches.rbr_conv[0].bn) + bn(x, branches.rbr_skip)
    mixed = mixed + bn(x * branches.rbr_scale.conv.weight[:, 0], branches.rbr_scale.bn)
    expected = x + mixer.layer_scale * (mixed - bn(x, mixer.norm))
    # Nine taps, and four operations of each of four norms.
    assert_same_sums(mixer(x), expected, 9 + 4 * 4)


def test_attention_weighs_the_pixels_of_each_head() -> None:
    attention = Attention(96)
    initialise(attention, seed=0)
    x = torch.randn(2, 96, 3, 4, generator=torch.Generator().manual_seed(1))
    tokens = x.reshape(2, 96, 12).permute(0, 2, 1)
    q, k, v = (tokens @ w.T for w in attention.qkv.weight.split(96))
    parts = []
    for head in range(3):
        mine = slice(32 * head, 32 * head + 32)
        weight = torch.softmax(q[..., mine] @ k[..., mine].mT / 32**0.5, dim=-1)
        parts.append(weight @ v[..., mine])
    expected = attention.proj(torch.cat(parts, dim=-1)).permute(0, 2, 1).reshape(2, 96, 3, 4)
    # In q, k and v; in q k; over the pixels; in the projection.
    assert_same_sums(attention(x), expected, 96 + 32 + 12 + 96)


def test_the_way_down_is_linear_up_to_the_1x1() -> None:
    """The published code drops what its activation between the two returns."""
    down = PatchEmbed(3, 6).proj[0]
    initialise(down, seed=0)
    down.eval()
    x, y = torch.randn(2, 1, 3, 11, 8, generator=torch.Generator().manual_seed(1))
    bias = down(torch.zeros_like(x))
    together = down(x) + down(y) - bias
    # Two kernels and their norms, three times.
    assert_same_sums(down(x + y), together, 3 * (7 * 7 + 3 * 3 + 2 * 4))
    assert down(x).shape == (1, 6, 6, 4)


def test_only_the_last_stage_attends_and_its_pixels_are_told_apart() -> None:
    network = on_meta("fastvit_ma36").network
    assert [sum(isinstance(x, Attention) for x in part.modules()) for part in network] == [
        *[0] * 7,
        6,
    ]
    assert network[6].pe.kernel_size == (7, 7) and network[6].pe.groups == 608
