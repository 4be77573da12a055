"""Every ConvNeXt loses its layer scales, and has a LayerNormalization for each norm."""

from __future__ import annotations

import pytest

import flatfold
from flatfold.models import ZOO
from flatfold.models.convnext import convnext
from flatfold.models.initialise import initialise
from tests.golden.rows import TABLE

# What a LayerNorm that is written out has beside its scale and bias, and the head.
NORM = {"ReduceMean": 2, "Sub": 1, "Pow": 1, "Sqrt": 1, "Div": 1}


def training_form(depths: tuple[int, ...]) -> dict[str, int]:
    """What a network with these stages has before."""
    blocks, stages = sum(depths), len(depths)
    return {
        "Conv": stages + blocks,
        "LayerNormalization": blocks + 1,
        "MatMul": 2 * blocks,
        "Transpose": 2 * blocks,
        "Gelu": blocks,
        "Mul": blocks + stages,  # layer scales, and scales of the norms that are written out
        "Add": blocks + 2 * blocks + 2 * stages,  # shortcuts, biases, epsilons and biases
        **{op: n * stages for op, n in NORM.items()},
        "ReduceMean": 2 * stages + 1,
        "Gemm": 1,
    }


def deploy_form(depths: tuple[int, ...], moved: int) -> dict[str, int]:
    """What it has after.

    The norms between stages become LayerNormalizations between two Transposes, and lose their
    biases to the convolution behind them. The stem takes the mean over the channels off itself,
    which leaves the mean of the squares, and scale and bias as one depthwise 1x1. `moved` second
    linear layers stand behind the Transpose, as 1x1 convolutions with their bias; the first ones
    read what LayerNormalization makes along the last axis, and stay.
    """
    blocks, stages = sum(depths), len(depths)
    return {
        "Conv": stages + blocks + 1 + moved,
        "LayerNormalization": blocks + stages,
        "MatMul": 2 * blocks - moved,
        "Transpose": 2 * blocks + 2 * (stages - 1),
        "Gelu": blocks,
        "Add": blocks + (2 * blocks - moved) + 1,  # shortcuts, biases, an epsilon
        **dict.fromkeys(("Pow", "Sqrt", "Div"), 1),  # the stem's norm
        "ReduceMean": 2,  # and the head's mean
        "Gemm": 1,
    }


@pytest.mark.parametrize("name", TABLE["convnext"])
def test_every_scale_is_folded(name):
    row, kwargs = TABLE["convnext"][name], ZOO[name].kwargs
    depths, widths = kwargs["depths"], kwargs["widths"]
    moved = 2 * sum(depths) - row["after"]["MatMul"]
    assert sum(depths[1:]) <= moved <= sum(depths)  # what pays depends on the size of the map
    assert row["before"] == training_form(depths)
    assert row["after"] == deploy_form(depths, moved)
    gone = sum(depth * width for depth, width in zip(depths, widths, strict=True))  # layer scales
    gone += sum(widths[:-1]) + widths[-1]  # biases of the norms between stages and of the last
    biases = row["parameters"][0] - row["parameters"][1] - gone  # of the norms in blocks
    each = [depth * width for depth, width in zip(depths, widths, strict=True)]
    assert biases in (sum(each), sum(each[1:]))  # on the largest map one may not pay


def test_a_small_one_at_an_odd_size():
    module = convnext(widths=(8, 12), depths=(1, 2), num_classes=10)
    initialise(module, seed=0)
    done = flatfold.optimize(module.eval(), input_shape=(3, 29, 38), dynamic_batch=True)
    assert done.before.operators == training_form((1, 2))
    assert done.after.operators == deploy_form((1, 2), moved=3)
    assert done.equivalence.verdict == "certified"
