"""Every MobileNeXt loses its BatchNorms, and nothing else: its linear pairs are bottlenecks."""

from __future__ import annotations

from collections import Counter

import pytest

import flatfold
from flatfold.models.initialise import initialise
from flatfold.models.mobilenext import mobilenext
from tests.golden.rows import TABLE

COMPOSED = {"mobilenext_035": 1, "mobilenext_050": 1}  # pairs around less than a register
TAIL = {"Gemm": 1, "ReduceMean": 1, "Reshape": 1}
# Blocks with depthwise layers at both ends, with a strided one at the end, with none; shortcuts.
PUBLISHED, SMALL = (15, 3, 2, 12), (4, 0, 1, 2)


def deploy_form(blocks: tuple[int, int, int, int], divisor: int) -> Counter[str]:
    """A Clip after the stem, after each leading depthwise layer and after each expansion."""
    whole, strided, widening, shortcuts = blocks
    return Counter(
        {
            "Conv": 1 + 4 * whole + 3 * strided + 2 * widening,
            "Clip": 1 + 2 * whole + strided + widening,
            "Add": shortcuts,
            **({"Mul": shortcuts} if divisor > 1 else {}),
            **TAIL,
        }
    )


def training_form(blocks: tuple[int, int, int, int], divisor: int) -> Counter[str]:
    """A shortcut of some channels is a Slice of them and a Pad to the width of the others."""
    form = deploy_form(blocks, divisor)
    partial = form.pop("Mul", 0)
    form.update({"BatchNormalization": form["Conv"], "Slice": partial, "Pad": partial})
    return +form


@pytest.mark.parametrize("name", TABLE["mobilenext"])
def test_a_partial_shortcut_becomes_a_scale_and_every_norm_is_folded(name):
    row = TABLE["mobilenext"][name]
    divisor = int(name.partition("_d")[2] or 1)
    assert row["before"] == training_form(PUBLISHED, divisor)
    composed = Counter({"Conv": COMPOSED.get(name, 0)})
    assert row["after"] == deploy_form(PUBLISHED, divisor) - composed
    assert (row["gmac"][0] == row["gmac"][1]) == (name not in COMPOSED)


def test_the_scale_of_a_partial_shortcut_has_a_number_for_each_of_its_channels():
    parameters = {name: row["parameters"] for name, row in TABLE["mobilenext"].items()}
    train, deploy = parameters["mobilenext_100"]
    channels = 2 * 192 + 2 * 288 + 3 * 384 + 3 * 576 + 2 * 960
    for part in (2, 3, 4):
        assert parameters[f"mobilenext_100_d{part}"] == [train, deploy + channels]


@pytest.mark.parametrize("divisor", [1, 3])
def test_a_small_one_at_an_odd_size(divisor):
    """No pair of layers around a narrow middle is composed: the product would be wider than it."""
    module = mobilenext(
        identity_divisor=divisor,
        rows=((2, 96, 1, 2), (6, 192, 3, 1), (6, 256, 1, 1)),
        num_classes=10,
    )
    initialise(module, seed=0, gain=2.0)
    done = flatfold.optimize(module.eval(), input_shape=(3, 63, 46), dynamic_batch=True)
    assert done.before.operators == training_form(SMALL, divisor)
    assert done.after.operators == deploy_form(SMALL, divisor)
    assert done.equivalence.verdict == "certified"
