"""Every VanillaNet reaches its published deploy form: one convolution for each pair."""

from __future__ import annotations

import pytest

import flatfold
from flatfold.models.initialise import initialise
from flatfold.models.vanillanet import vanillanet
from tests.golden.rows import TABLE


def training_form(layers: int, pools: int = 3) -> dict[str, int]:
    """What a network of `layers` pairs has before."""
    return {
        "Conv": 3 * layers - 1,
        "BatchNormalization": 3 * layers - 2,
        "LeakyRelu": layers,
        "Relu": layers - 1,
        "MaxPool": pools,
        "ReduceMean": 1,
        "Reshape": 1,
    }


def deploy_form(layers: int, pools: int = 3) -> dict[str, int]:
    """What it has after: each pair is one convolution, each series of activations another."""
    return {
        "Conv": 2 * layers - 1,
        "Relu": layers - 1,
        "MaxPool": pools,
        "ReduceMean": 1,
        "Reshape": 1,
    }


@pytest.mark.parametrize("name", TABLE["vanillanet"])
def test_every_pair_becomes_one_conv(name):
    layers = int(name.split("_")[1])
    row = TABLE["vanillanet"][name]
    assert (row["before"], row["after"]) == (training_form(layers), deploy_form(layers))


def small(slope: float, widths: tuple[int, ...] = (8, 12, 12, 16)):
    """Five layers and two of the pools of the ada_pool variant."""
    module = vanillanet(widths=widths, pools=(3, 1, 2), stem=(3, 1), slope=slope, num_classes=10)
    initialise(module, seed=0, gain=1.7)
    return module.eval()


def test_a_small_one_at_an_odd_size():
    done = flatfold.optimize(small(1.0), input_shape=(3, 31, 44), dynamic_batch=True)
    assert done.before.operators == training_form(5, pools=2)
    assert done.after.operators == deploy_form(5, pools=2)
    assert done.equivalence.verdict == "certified"


def test_on_a_map_of_one_pixel_a_series_is_a_scale_and_folds_too():
    done = flatfold.optimize(small(1.0, widths=(4, 4, 4, 16)), input_shape=(3, 10, 9))
    assert done.after.operators.keys() == deploy_form(5).keys() - {"ReduceMean"}  # of one pixel
    assert done.after.operators["Conv"] < deploy_form(5)["Conv"]
    assert done.equivalence.verdict == "certified"


@pytest.mark.parametrize("slope", [0.0, 0.99])
def test_before_the_end_of_the_schedule_no_pair_may_collapse(slope):
    done = flatfold.optimize(small(slope), input_shape=(3, 32, 32))
    kept = training_form(5, pools=2)
    del kept["BatchNormalization"]
    assert done.after.operators == kept
    assert done.equivalence.verdict == "certified"
