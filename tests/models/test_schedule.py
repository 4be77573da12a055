"""The slope of VanillaNet's activation, epoch by epoch."""

from __future__ import annotations

import copy
import math
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import flatfold
from flatfold.errors import InputError, UnknownName
from flatfold.models.initialise import initialise
from flatfold.models.schedule import SlopeSchedule
from flatfold.models.vanillanet import vanillanet


class Pair(nn.Module):
    """Two layers that become one, as a user would write them."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = 0.0
        self.first, self.second = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.second(F.leaky_relu(self.first(x), self.slope))
        return y


def slopes(schedule: SlopeSchedule, epochs: int) -> list[float]:
    module = Pair()
    return [schedule.apply(module), *(schedule.step(module) for _ in range(epochs))]


def test_linear_goes_in_equal_steps_to_exactly_one_and_stays() -> None:
    assert slopes(SlopeSchedule(4), 6) == [0.0, 0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_cosine_starts_and_ends_slowly() -> None:
    found = slopes(SlopeSchedule(4, "cosine"), 5)
    assert found[0] == 0.0 and found[4:] == [1.0, 1.0]
    assert found[1:4] == pytest.approx([(1 - math.sqrt(0.5)) / 2, 0.5, (1 + math.sqrt(0.5)) / 2])


@pytest.mark.parametrize("shape", ["linear", "cosine"])
@pytest.mark.parametrize("decay", [1, 3, 7, 100, 299])
def test_the_slope_is_one_at_the_end_and_not_before(shape: str, decay: int) -> None:
    values = [SlopeSchedule(decay, shape, epoch).slope for epoch in range(decay + 1)]
    assert values[0] == 0.0 and values[-1] == 1.0
    assert all(a < b for a, b in pairwise(values))


def test_no_epochs_of_decay_are_a_network_that_is_linear_from_the_start() -> None:
    assert SlopeSchedule(0).slope == 1.0


def test_every_network_given_takes_the_slope_of_the_epoch() -> None:
    network = vanillanet(widths=(8, 12), pools=(2,), slope=1.0, num_classes=2)
    average, schedule = copy.deepcopy(network), SlopeSchedule(10)
    assert schedule.apply(network, average) == network.slope == average.slope == 0.0
    assert schedule.step(network, average) == network.slope == average.slope == 0.1
    wrapped = nn.Sequential(nn.Identity(), network)
    assert schedule.step(wrapped) == network.slope == 0.2


def test_what_was_saved_goes_on_where_it_stood() -> None:
    schedule, network = SlopeSchedule(10, "cosine"), Pair()
    for _ in range(7):
        schedule.step(network)
    again, loaded = SlopeSchedule(**vars(schedule)), Pair()
    assert again.apply(loaded) == network.slope
    assert again.step(loaded) == schedule.step(network)


def test_a_network_without_a_slope_is_refused() -> None:
    with pytest.raises(InputError, match="no layer of Conv2d has a slope"):
        SlopeSchedule().apply(nn.Conv2d(1, 1, 1))


def test_an_unknown_shape_and_a_negative_epoch_are_refused() -> None:
    with pytest.raises(UnknownName) as raised:
        SlopeSchedule(shape="cosin")
    assert "cosine" in raised.value.hint
    with pytest.raises(InputError, match="0 or more"):
        SlopeSchedule(-1)


@pytest.mark.parametrize("shape", ["linear", "cosine"])
def test_a_pair_is_one_layer_at_the_end_of_the_schedule_and_not_before(shape: str) -> None:
    network, schedule = Pair(), SlopeSchedule(1000, shape, 999)
    initialise(network, seed=0)
    schedule.apply(network)
    assert 0.998 < network.slope < 1  # cosine rounds to 0.9999975, which is not 1
    before = flatfold.optimize(network.eval(), input_shape=(3, 12, 10))
    assert before.after.operators == {"Conv": 2, "LeakyRelu": 1}
    schedule.step(network)
    after = flatfold.optimize(network, input_shape=(3, 12, 10))
    assert after.after.operators == {"Conv": 1}
    assert (before.equivalence.verdict, after.equivalence.verdict) == ("identical", "certified")


def test_training_with_the_schedule_ends_in_a_network_that_collapses() -> None:
    """A few steps on noise: what is shown is that nothing of training is in the way."""
    torch.manual_seed(0)
    network = vanillanet(widths=(8, 8), pools=(2,), slope=0.0, num_classes=2)
    initialise(network, seed=0, gain=1.7)
    schedule, images = SlopeSchedule(3), torch.randn(8, 3, 16, 16)
    optimizer = torch.optim.SGD(network.train().parameters(), 1e-3)
    schedule.apply(network)
    for _ in range(3):
        optimizer.zero_grad()
        F.cross_entropy(network(images), torch.arange(8) % 2).backward()
        optimizer.step()
        schedule.step(network)
    done = flatfold.optimize(network.eval(), input_shape=(3, 16, 16))
    assert not {"LeakyRelu", "BatchNormalization"} & done.after.operators.keys()
    assert done.equivalence.verdict == "certified"
