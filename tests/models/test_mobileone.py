"""MobileOne is the published network: its layers, names and gates."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from flatfold.models.initialise import initialise
from flatfold.models.layers import SqueezeExcite
from flatfold.models.mobileone import MobileOneBlock
from tests.models.published import norm, require_round_trip
from tests.models.weightless import on_meta
from tests.rounding import assert_same_sums

DEPTHS = (2, 8, 10, 1)


def conv_bn(prefix: str) -> set[str]:
    return {f"{prefix}.conv.weight", *norm(f"{prefix}.bn")}


def block(prefix: str, branches: int, scaled: bool, skips: bool, gated: bool) -> set[str]:
    keys = set().union(*(conv_bn(f"{prefix}.rbr_conv.{i}") for i in range(branches)))
    if scaled:
        keys |= conv_bn(f"{prefix}.rbr_scale")
    if skips:
        keys |= norm(f"{prefix}.rbr_skip")
    if gated:
        keys |= {f"{prefix}.se.{x}.{y}" for x in ("reduce", "expand") for y in ("weight", "bias")}
    return keys


def published(branches: int, stem_skips: bool, gated: tuple[int, ...]) -> Iterator[str]:
    """The keys of the authors' file."""
    yield from ("linear.weight", "linear.bias")
    yield from block("stage0", 1, True, False, False)
    for stage, depth in enumerate(DEPTHS):
        for pair in range(depth):
            gate = pair >= depth - gated[stage]
            prefix = f"stage{stage + 1}"
            yield from block(f"{prefix}.{2 * pair}", branches, True, pair > 0, gate)
            same_width = pair > 0 or (stage == 0 and stem_skips)
            yield from block(f"{prefix}.{2 * pair + 1}", branches, False, same_width, gate)


@pytest.mark.parametrize(
    ("name", "branches", "stem_skips", "gated"),
    [
        ("mobileone_s0", 4, True, (0, 0, 0, 0)),
        ("mobileone_s1", 1, False, (0, 0, 0, 0)),
        ("mobileone_s4", 1, False, (0, 0, 5, 1)),
    ],
)
def test_checkpoints_with_the_published_keys_load(
    name: str, branches: int, stem_skips: bool, gated: tuple[int, ...]
) -> None:
    require_round_trip(name, published(branches, stem_skips, gated))


def test_depthwise_and_pointwise_blocks_take_turns() -> None:
    network = on_meta("mobileone_s1")
    for stage, depth in enumerate(DEPTHS):
        convs = [b.rbr_conv[0].conv for b in getattr(network, f"stage{stage + 1}")]
        assert [c.kernel_size[0] for c in convs] == [3, 1] * depth
        assert [c.stride[0] for c in convs] == [2] + [1] * (2 * depth - 1)
        assert all(c.groups == (c.in_channels if c.kernel_size[0] == 3 else 1) for c in convs)


def test_only_the_largest_has_gates() -> None:
    for name in ("mobileone_s0", "mobileone_s3"):
        assert not any(isinstance(layer, SqueezeExcite) for layer in on_meta(name).modules())
    gates = [x for x in on_meta("mobileone_s4").modules() if isinstance(x, SqueezeExcite)]
    assert [gate.down.out_channels for gate in gates] == [56] * 11 + [128]


@pytest.mark.parametrize(("kernel", "groups"), [(3, 8), (1, 1)])
def test_block_is_the_sum_of_its_branches(kernel: int, groups: int) -> None:
    layer = MobileOneBlock(8, 8, kernel, 1, groups, branches=3, squeeze_excite=False)
    initialise(layer, seed=0)
    x = torch.randn(2, 8, 5, 6, generator=torch.Generator().manual_seed(1))

    def scaled(y: torch.Tensor, bn: nn.BatchNorm2d) -> torch.Tensor:
        scale = bn.weight / torch.sqrt(bn.running_var + 1e-5)
        return y * scale.view(-1, 1, 1, 1)[:, 0] + (bn.bias - bn.running_mean * scale).view(
            -1, 1, 1
        )

    branches = [(c.conv.weight, c.bn) for c in layer.rbr_conv]
    if kernel > 1:
        branches.append((layer.rbr_scale.conv.weight, layer.rbr_scale.bn))
    total = scaled(x, layer.rbr_skip)
    for weight, bn in branches:
        y = nn.functional.conv2d(x, weight, padding=weight.shape[-1] // 2, groups=groups)
        total = total + scaled(y, bn)
    # At most nine products and a norm in each of five branches.
    assert_same_sums(layer.eval()(x), total.clamp(min=0), 5 * (9 + 4))


def test_the_gate_comes_before_the_activation() -> None:
    layer = MobileOneBlock(16, 16, 1, squeeze_excite=True)
    initialise(layer, seed=0)
    seen: list[torch.Tensor] = []
    layer.se.register_forward_hook(lambda _module, _args, y: seen.append(y))
    y = layer.eval()(torch.randn(1, 16, 4, 4, generator=torch.Generator().manual_seed(1)))
    assert (seen[0] < 0).any()
    assert torch.equal(y, seen[0].clamp(min=0))
