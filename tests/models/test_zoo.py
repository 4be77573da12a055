from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from flatfold.errors import UnknownName
from flatfold.models import ZOO, create_model, list_models
from flatfold.models.layers import SqueezeExcite
from flatfold.models.repvgg import RepVGGBlock
from tests.models.weightless import on_meta
from tests.rounding import assert_same_sums


def blocks(module: nn.Module) -> Iterator[RepVGGBlock]:
    return (layer for layer in module.modules() if isinstance(layer, RepVGGBlock))


@pytest.mark.parametrize("name", list_models())
def test_parameter_count_is_that_of_the_published_network(name: str) -> None:
    published, _ = ZOO[name].parameters
    assert sum(parameter.numel() for parameter in on_meta(name).parameters()) == published


def test_identity_branches_are_where_shapes_agree() -> None:
    for name, total, with_identity in (("a0", 22, 17), ("b1g4", 28, 23), ("d2se", 48, 43)):
        built = list(blocks(on_meta(f"repvgg_{name}")))
        assert len(built) == total
        assert sum(block.rbr_identity is not None for block in built) == with_identity


def test_grouped_layers_are_the_even_ones() -> None:
    groups = [block.rbr_dense[0].groups for block in blocks(on_meta("repvgg_b1g4"))]
    assert groups == [4 if i % 2 == 0 and 0 < i <= 26 else 1 for i in range(28)]
    pointwise = [block.rbr_1x1[0].groups for block in blocks(on_meta("repvgg_b1g4"))]
    assert pointwise == groups


def test_keys_are_those_of_the_published_checkpoints() -> None:
    keys = on_meta("repvgg_a0").state_dict()
    assert {"stage0.rbr_dense.conv.weight", "stage1.1.rbr_identity.running_var"} <= keys.keys()
    assert {"stage3.0.rbr_1x1.bn.bias", "linear.weight"} <= keys.keys()


def test_unknown_name_suggests_near_ones() -> None:
    with pytest.raises(UnknownName) as raised:
        create_model("repvgg_a9")
    assert "repvgg_a0" in raised.value.hint


def test_pattern_selects() -> None:
    assert list_models("repvgg_b1*") == ["repvgg_b1", "repvgg_b1g2", "repvgg_b1g4"]
    assert list_models("nothing*") == []


def test_listing_imports_no_torch() -> None:
    code = "import sys, flatfold.models; assert 'torch' not in sys.modules, 'torch'"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_number_of_classes() -> None:
    assert create_model("repvgg_a0", num_classes=7).linear.weight.shape[0] == 7


@pytest.mark.parametrize("size", [(5, 5), (8, 3)])
def test_squeeze_excite_averages_any_map(size: tuple[int, int]) -> None:
    gate = SqueezeExcite(8, 2)
    x = torch.randn(2, 8, *size, generator=torch.Generator().manual_seed(0))
    mean = x.mean((2, 3), keepdim=True)
    expected = x * torch.sigmoid(gate.up(torch.relu(gate.down(mean))))
    # The map; two layers and their biases.
    assert_same_sums(gate(x), expected, size[0] * size[1] + (8 + 1) + (2 + 1))
