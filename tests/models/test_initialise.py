from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from flatfold.models import create_model, list_models
from flatfold.models.initialise import initialise
from tests.golden.rows import every


def images(size: int = 96) -> Tensor:
    """Two different images and a third, darker one."""
    drawn = torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(7))
    return drawn * torch.tensor([1.0, 1.0, 0.3]).view(3, 1, 1, 1)


def test_same_seed_same_bits_and_another_seed_others() -> None:
    first, again = create_model("repvgg_a0", seed=3), create_model("repvgg_a0", seed=3)
    other = create_model("repvgg_a0", seed=4).state_dict()
    for key, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[key]), key
        assert key.endswith("num_batches_tracked") or not torch.equal(value, other[key]), key


def test_global_random_state_is_untouched() -> None:
    before = torch.get_rng_state()
    create_model("repvgg_a0", seed=5)
    assert torch.equal(before, torch.get_rng_state())


def test_model_is_in_eval_mode() -> None:
    assert not any(layer.training for layer in create_model("repvgg_a0").modules())


def test_batchnorm_statistics_are_not_neutral() -> None:
    norms = [x for x in create_model("repvgg_a0").modules() if isinstance(x, nn.BatchNorm2d)]
    gamma = torch.cat([norm.weight for norm in norms])
    assert len(norms) == 61
    assert gamma.abs().min() >= 0.4 and gamma.abs().max() <= 1.2
    assert 0.05 < (gamma < 0).float().mean() < 0.15
    variance = torch.cat([norm.running_var for norm in norms])
    assert variance.min() >= 0.4 and variance.max() <= 1.2
    for values in (torch.cat([x.bias for x in norms]), torch.cat([x.running_mean for x in norms])):
        assert abs(values.std() - 0.2) < 0.01 and abs(values.mean()) < 0.01


@pytest.mark.parametrize("name", every(list_models()))
def test_logits_are_of_order_one_and_depend_on_the_input(name: str) -> None:
    with torch.no_grad():
        logits = create_model(name)(images())
    assert torch.isfinite(logits).all()
    assert 0.2 < logits.std() < 5
    for other in (1, 2):
        assert (logits[0] - logits[other]).std() > 0.05 * logits.std()


class Scaled(nn.Module):
    """Layers and parameters that start out neutral."""

    def __init__(self) -> None:
        super().__init__()
        self.layer_scale = nn.Parameter(torch.full((4,), 1e-6))
        self.norm = nn.LayerNorm(4)
        self.up = nn.ConvTranspose2d(4, 2, 2)
        self.depthwise = nn.Conv2d(4, 4, 3, groups=4)
        self.head = nn.Linear(4, 3)


def test_nothing_stays_neutral() -> None:
    module = Scaled()
    initialise(module, seed=0)
    assert module.layer_scale.abs().min() > 1e-3
    assert (module.norm.weight != 1).all() and (module.norm.bias != 0).all()
    for layer in (module.up, module.depthwise, module.head):
        assert (layer.weight != 0).all() and (layer.bias != 0).all()
    assert module.depthwise.weight.sum((1, 2, 3)).abs().min() > 1e-3


def test_norms_with_a_gain_of_their_own() -> None:
    class Outer(nn.BatchNorm2d):
        init_gain = 0.25

    plain, outer = nn.BatchNorm2d(64), Outer(64)
    for norm in (plain, outer):
        initialise(norm, seed=0)
    for name in ("weight", "bias"):
        torch.testing.assert_close(getattr(outer, name), 0.5 * getattr(plain, name))
    assert torch.equal(outer.running_var, plain.running_var)


def test_other_parameters_of_a_layer_move_too() -> None:
    class Gained(nn.Conv2d):
        def __init__(self) -> None:
            super().__init__(3, 4, 3)
            self.gain = nn.Parameter(torch.zeros(4))

    layer, plain = Gained(), nn.Conv2d(3, 4, 3)
    for one in (layer, plain):
        initialise(one, seed=0)
    assert (layer.gain != 0).all()
    assert torch.equal(layer.weight, plain.weight)
