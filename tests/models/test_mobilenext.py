"""MobileNeXt is the published network: its blocks, names and shortcuts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from flatfold.models import list_models
from flatfold.models.initialise import initialise
from flatfold.models.mobilenext import Sandglass, mobilenext
from tests.models.published import norm, require_round_trip
from tests.models.weightless import on_meta

# Layers of a block at their place in its Sequential: a convolution, a norm, an activation.
LAYERS = {
    "whole": "cnacncnacn",
    "strided": "cncnacn",
    "widening": "cncna",
}
BLOCKS = (
    ["whole"] * 2
    + (["strided"] + ["whole"] * 2) * 2
    + ["widening"]
    + ["whole"] * 3
    + ["strided"]
    + ["whole"] * 3
    + ["widening"]
    + ["whole"] * 3
)


def published_keys() -> Iterator[str]:
    yield from norm("features.0.1")
    yield "features.0.0.weight"
    for index, kind in enumerate(BLOCKS, 1):
        for place, layer in enumerate(LAYERS[kind]):
            prefix = f"features.{index}.conv.{place}"
            if layer == "c":
                yield f"{prefix}.weight"
            elif layer == "n":
                yield from norm(prefix)
    yield from ("classifier.1.weight", "classifier.1.bias")


@pytest.mark.parametrize("name", list_models("mobilenext_*"))
def test_keys_are_those_of_the_published_checkpoints(name: str) -> None:
    require_round_trip(name, published_keys())


def test_narrow_channels_of_every_block() -> None:
    found = [
        tuple(layer.in_channels for layer in block.conv if isinstance(layer, nn.Conv2d))
        for block in on_meta("mobilenext_100").features[1:]
    ]
    assert len(found) == 20
    assert found[:4] == [(32, 32, 16, 96), (96, 96, 32, 144), (144, 32, 192), (192, 192, 32, 192)]
    assert found[8:10] == [(288, 64), (384, 384, 64, 384)]
    assert found[-3:] == [(960, 960, 160, 960), (960, 960, 160, 960), (960, 960, 208, 1280)]


def test_the_last_row_never_becomes_narrower() -> None:
    for name, channels in (("035", 1280), ("075", 1280), ("140", 1792)):
        assert on_meta(f"mobilenext_{name}").classifier[1].in_features == channels


def test_shortcuts_are_where_the_width_stays() -> None:
    shared = [block.shared for block in on_meta("mobilenext_100").features[1:]]
    widths = [192] * 2 + [288] * 2 + [384] * 3 + [576] * 3 + [960] * 2
    assert [count for count in shared if count] == widths
    assert [index for index, count in enumerate(shared) if not count] == [0, 1, 2, 5, 8, 12, 16, 19]


@pytest.mark.parametrize(("divisor", "shared"), [(1, 8), (2, 4), (3, 2), (8, 1)])
def test_the_shortcut_carries_the_first_channels(divisor: int, shared: int) -> None:
    block = Sandglass(8, 8, 1, 6, True, True, divisor).eval()
    initialise(block, seed=0)
    x = torch.randn(2, 8, 5, 4, generator=torch.Generator().manual_seed(0))
    y = block.conv(x)
    y[:, :shared] += x[:, :shared]
    assert torch.equal(block(x), y)


def test_activations_are_after_the_first_depthwise_and_after_the_expansion() -> None:
    layers = on_meta("mobilenext_100").features[3].conv
    assert [at for at, layer in enumerate(layers) if isinstance(layer, nn.ReLU6)] == [4]
    layers = on_meta("mobilenext_100").features[4].conv
    assert [at for at, layer in enumerate(layers) if isinstance(layer, nn.ReLU6)] == [2, 7]


def test_map_is_a_32nd_of_the_input() -> None:
    network = mobilenext(width=0.35, num_classes=2).eval()
    found: list[torch.Size] = []
    network.avgpool.register_forward_pre_hook(lambda _module, args: found.append(args[0].shape))
    network(torch.zeros(1, 3, 65, 96))
    assert found == [(1, 1280, 3, 3)]
