"""RepViT is the published network: its layers, names, gates and heads."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from flatfold.frontend.pytorch.weights import load_weights
from flatfold.models import ZOO
from flatfold.models.initialise import initialise
from flatfold.models.layers import SqueezeExcite
from flatfold.models.repvit import ChannelMixer, Classifier, RepVGGDW, repvit, squeezed
from tests.models.published import norm, require_round_trip
from tests.models.weightless import on_meta
from tests.rounding import assert_same_sums


def layer(prefix: str) -> set[str]:
    return {f"{prefix}.weight", f"{prefix}.bias"}


def conv_bn(prefix: str) -> set[str]:
    return {f"{prefix}.c.weight", *norm(f"{prefix}.bn")}


def block(prefix: str, kind: str) -> set[str]:
    """`kind`: "2" halves the size; "0" and "1" do not, and the latter has a gate."""
    mixer = f"{prefix}.token_mixer"
    keys = conv_bn(f"{prefix}.channel_mixer.m.0") | conv_bn(f"{prefix}.channel_mixer.m.2")
    if kind == "2":
        return keys | conv_bn(f"{mixer}.0") | conv_bn(f"{mixer}.2")
    keys |= conv_bn(f"{mixer}.0.conv") | layer(f"{mixer}.0.conv1") | norm(f"{mixer}.0.bn")
    return keys | (layer(f"{mixer}.1.fc1") | layer(f"{mixer}.1.fc2") if kind == "1" else set())


def published(blocks: str, heads: tuple[str, ...] = ("classifier",)) -> Iterator[str]:
    """The keys of the authors' file."""
    yield from conv_bn("features.0.0") | conv_bn("features.0.2")
    for index, kind in enumerate(blocks):
        yield from block(f"features.{index + 1}", kind)
    for head in heads:
        yield from norm(f"classifier.{head}.bn") | layer(f"classifier.{head}.l")


@pytest.mark.parametrize(
    ("name", "blocks"),
    [
        ("repvit_m0_6", "10" + "210" + "2101010100" + "21"),
        ("repvit_m1_1", "100" + "2100" + "21010101010100" + "210"),
        ("repvit_m2_3", "1010100" + "21010100" + "2" + 17 * "10" + "0" + "210"),
    ],
)
def test_checkpoints_with_the_published_keys_load(name: str, blocks: str) -> None:
    require_round_trip(name, published(blocks))


def test_those_with_two_heads_load_too() -> None:
    network = repvit(widths=(8, 8, 8, 8), gates=("1", "", "", "0"), distilled=True)
    keys = set(published("1" + "2" + "2" + "20", ("classifier", "classifier_dist")))
    own = {key: key for key in network.state_dict()}
    short = {
        key.replace(".conv.weight", ".c.weight")
        .replace("linear", "l")
        .replace("down", "fc1")
        .replace("up", "fc2"): own
        for key, own in own.items()
    }
    assert set(short) == keys
    file = {key: network.state_dict()[own] for key, own in short.items()}
    load_weights(network, file, ZOO["repvit_m0_6"].renames)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("repvit_m0_6", 2_808_932),
        ("repvit_m0_9", 5_489_328),
        ("repvit_m1_0", 7_302_796),
        ("repvit_m1_1", 8_802_912),
        ("repvit_m1_5", 14_644_432),
        ("repvit_m2_3", 23_688_792),
    ],
)
def test_parameters_with_two_heads(name: str, parameters: int) -> None:
    with torch.device("meta"):
        network = repvit(**ZOO[name].kwargs, distilled=True)
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters


def test_two_heads_are_averaged() -> None:
    heads = Classifier(6, 4, distilled=True)
    initialise(heads, seed=0)
    x = torch.randn(3, 6, generator=torch.Generator().manual_seed(1))
    expected = (heads.eval().classifier(x) + heads.classifier_dist(x)) / 2
    assert_same_sums(heads(x), expected, 2 * (6 + 4 + 1))  # products, a norm, the bias


def test_widths_inside_the_gates() -> None:
    assert [squeezed(c) for c in (16, 40, 48, 56, 80, 96, 112)] == [8, 8, 16, 16, 24, 24, 32]
    gates = [x for x in on_meta("repvit_m0_6").modules() if isinstance(x, SqueezeExcite)]
    assert [x.down.out_channels for x in gates] == [8, 24, *[40] * 4, 80]


def test_the_outer_norm_comes_behind_the_sum() -> None:
    mixer = RepVGGDW(6)
    initialise(mixer, seed=0)
    mixer.eval()
    x = torch.randn(2, 6, 5, 7, generator=torch.Generator().manual_seed(1))

    def bn(y: torch.Tensor, by: nn.BatchNorm2d) -> torch.Tensor:
        mean, var = by.running_mean.view(-1, 1, 1), by.running_var.view(-1, 1, 1)
        y = (y - mean) / torch.sqrt(var + 1e-5)
        return y * by.weight.view(-1, 1, 1) + by.bias.view(-1, 1, 1)

    local = nn.functional.conv2d(x, mixer.conv.conv.weight, padding=1, groups=6)
    scaled = x * mixer.conv1.weight[:, 0] + mixer.conv1.bias.view(-1, 1, 1)
    expected = bn(bn(local, mixer.conv.bn) + scaled + x, mixer.bn)
    # Nine taps, a scale and the identity, two norms.
    assert_same_sums(mixer(x), expected, 9 + 2 + 1 + 2 * 4)


def test_training_starts_with_the_shortcuts_alone() -> None:
    mixer = ChannelMixer(4).eval()
    x = torch.randn(1, 4, 3, 3, generator=torch.Generator().manual_seed(1))
    assert torch.equal(mixer(x), x)
