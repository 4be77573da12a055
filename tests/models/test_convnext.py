"""ConvNeXt is the published network: its layers, names and equations."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from flatfold.models.convnext import ConvNeXtBlock
from flatfold.models.initialise import initialise
from tests.models.published import require_round_trip
from tests.models.weightless import on_meta
from tests.rounding import assert_same_sums


def layer(prefix: str) -> set[str]:
    return {f"{prefix}.weight", f"{prefix}.bias"}


def frame(stages: int = 4) -> set[str]:
    """The published keys of all that is not a block: stem, ways down, head."""
    joints = {f"downsample_layers.{stage}.{i}" for stage in range(stages) for i in (0, 1)}
    return set().union(*(layer(prefix) for prefix in (*joints, "norm", "head")))


def block(prefix: str) -> set[str]:
    names = ("dwconv", "norm", "pwconv1", "pwconv2")
    return {f"{prefix}.gamma"}.union(*(layer(f"{prefix}.{name}") for name in names))


@pytest.mark.parametrize("name", ["convnext_tiny", "convnext_large"])
def test_published_checkpoints_load(name: str) -> None:
    depths = (3, 3, 9 if name == "convnext_tiny" else 27, 3)
    blocks = [f"stages.{i}.{j}" for i, depth in enumerate(depths) for j in range(depth)]
    require_round_trip(name, frame().union(*(block(prefix) for prefix in blocks)))


def test_kernels() -> None:
    network = on_meta("convnext_base")
    assert [
        (stage[0].dwconv.kernel_size, stage[0].dwconv.padding, stage[0].dwconv.groups)
        for stage in network.stages
    ] == [((7, 7), (3, 3), width) for width in (128, 256, 512, 1024)]
    first, *others = network.downsample_layers
    assert (first[0].kernel_size, first[0].stride) == ((4, 4), (4, 4))
    assert {(down[1].kernel_size, down[1].stride) for down in others} == {((2, 2), (2, 2))}


def test_block_is_its_equation() -> None:
    module = ConvNeXtBlock(6)
    initialise(module, seed=0)
    module.double()
    x = torch.randn(2, 6, 5, 9, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    state = module.state_dict()
    y = F.conv2d(x, state["dwconv.weight"], state["dwconv.bias"], padding=3, groups=6)
    centred = y - y.mean(1, keepdim=True)
    normal = centred / (centred.square().mean(1, keepdim=True) + 1e-6).sqrt()
    normal = normal * state["norm.weight"].view(-1, 1, 1) + state["norm.bias"].view(-1, 1, 1)
    inner = torch.einsum("oi,nihw->nohw", state["pwconv1.weight"], normal)
    inner = F.gelu(inner + state["pwconv1.bias"].view(-1, 1, 1))
    outer = torch.einsum("oi,nihw->nohw", state["pwconv2.weight"], inner)
    outer = outer + state["pwconv2.bias"].view(-1, 1, 1)
    # 7x7; mean and variance; two linear layers, the second of four times the width; the rest.
    terms = 7 * 7 + 2 * 6 + 6 + 4 * 6 + 8
    assert_same_sums(module(x), x + state["gamma"].view(-1, 1, 1) * outer, terms)
