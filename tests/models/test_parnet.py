"""ParNet is the published network: its layers, names, gates and channel orders."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flatfold.models import create_model, list_models
from flatfold.models.initialise import initialise
from flatfold.models.parnet import Fusion, ParNetBlock, parnet, shuffled
from tests.models.published import norm, require_round_trip
from tests.models.weightless import on_meta
from tests.rounding import assert_same_sums


def images(channels: int, height: int = 8, width: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, channels, height, width, generator=generator)


def block(prefix: str, kind: str) -> set[str]:
    """The published keys of one block: "stream", "down" or plain."""
    inner = f"{prefix}.block"
    point = f"{inner}.rbr_1x1.1" if kind == "down" else f"{inner}.rbr_1x1"
    keys = {f"{inner}.rbr_dense.conv.weight", *norm(f"{inner}.rbr_dense.bn")}
    keys |= {f"{point}.conv.weight", *norm(f"{point}.bn"), f"{inner}.se.cvsig.conv.weight"}
    return keys | (norm(f"{inner}.rbr_identity") if kind == "stream" else set())


@pytest.mark.parametrize("name", list_models("parnet_*"))
def test_published_keys_fill_the_network(name: str) -> None:
    keys = {"head.fc.weight", "head.fc.bias"}
    downs = ("inits.0.0", "inits.0.1", "inits.1", "inits.2", "downsamples_2.0", "downsamples_2.1.2")
    for prefix in (*downs, "combine.3"):
        keys |= block(prefix, "down")
    keys |= block("combine.2", "plain")
    for stream, depth in enumerate((4, 5, 5)):
        for i in range(depth):
            keys |= block(f"streams.{stream}.{i}", "stream")
    for operands in ("downsamples_2.1.0", "combine.0"):
        keys |= norm(f"{operands}.b1") | norm(f"{operands}.b2")
    require_round_trip(name, keys)


def test_channels_of_a_shuffle_and_of_two_operands() -> None:
    x = torch.arange(12.0).view(1, 12, 1, 1).expand(2, 12, 3, 2)
    for groups in (2, 3):
        order = [(k % groups) * (12 // groups) + k // groups for k in range(12)]
        assert shuffled(x, groups)[0, :, 0, 0].tolist() == order
    fusion = Fusion(4, 6, 1, "silu").eval()
    seen: list[Tensor] = []
    fusion.block.register_forward_pre_hook(lambda _module, args: seen.append(args[0]))
    a, b = images(4), images(4) + 1
    fusion(a, b)
    for i in range(4):
        assert torch.equal(seen[0][:, 2 * i], fusion.b1(a)[:, i])
        assert torch.equal(seen[0][:, 2 * i + 1], fusion.b2(b)[:, i])


def test_a_stream_block_gates_its_norm_by_that_norm() -> None:
    layer = ParNetBlock(6, 6, 1, "silu").eval()
    initialise(layer, seed=0)
    x = images(6)
    identity = layer.rbr_identity(x)
    matrix = layer.gate.weight.flatten(1)
    gate = torch.sigmoid(identity.mean((2, 3)) @ matrix.T)[..., None, None]
    y = layer.rbr_dense(x) + layer.rbr_1x1(x) + identity * gate
    # The map and the channels in the gate; the two sums and the activation.
    assert_same_sums(layer(x), y * torch.sigmoid(y), 8 * 6 + 6 + 4)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("groups", [1, 2])
def test_another_block_doubles_the_gate_of_its_input(stride: int, groups: int) -> None:
    layer = ParNetBlock(6, 8, stride, "relu", groups).eval()
    initialise(layer, seed=0)
    x = images(6)
    mean = x.mean((2, 3), keepdim=True)
    gate = torch.sigmoid(F.conv2d(mean, layer.gate.weight, groups=groups))
    pooled = x if stride == 1 else x.unflatten(2, (-1, 2)).unflatten(4, (-1, 2)).mean((3, 5))
    y = torch.relu((layer.rbr_dense(x) + layer.rbr_1x1(pooled)) * 2 * gate)
    order = [(k % groups) * (8 // groups) + k // groups for k in range(8)]
    # The map and the channels in the gate; a mean of four and the 1x1 over it; the products.
    assert_same_sums(layer(x), y[:, order], (8 * 6 + 6) + (4 + 6 + 4) + 3)


def test_activation_is_that_of_the_paper_unless_told() -> None:
    assert {type(m.nonlinearity) for m in blocks(on_meta("parnet_s"))} == {nn.SiLU}
    other = parnet(widths=(4, 6, 8), last=8, depths=(1, 1, 1), activation="relu", num_classes=2)
    assert {type(m.nonlinearity) for m in blocks(other)} == {nn.ReLU}


def blocks(module: nn.Module) -> list[ParNetBlock]:
    return [layer for layer in module.modules() if isinstance(layer, ParNetBlock)]


def test_twelve_layers_deep_and_three_streams() -> None:
    network = on_meta("parnet_s")
    assert [len(stream) for stream in network.streams] == [4, 5, 5]
    assert len(blocks(network)) == 22
    assert sum(layer.rbr_identity is not None for layer in blocks(network)) == 14
    assert [layer.groups for layer in blocks(network)].count(2) == 2


def test_every_map_must_have_an_even_size() -> None:
    network = create_model("parnet_s", num_classes=3)
    assert network(images(3, 64, 96)).shape == (2, 3)
    with pytest.raises(RuntimeError):
        network(images(3, 90, 90))
