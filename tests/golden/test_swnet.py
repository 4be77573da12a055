"""Every large kernel of a Shift-ConvNet comes down to two strips, however it shifts."""

from __future__ import annotations

from collections import Counter

import pytest
from torch import nn

import flatfold
from flatfold.models import ZOO
from flatfold.models.initialise import initialise
from flatfold.models.shuffles import Layout
from flatfold.models.swnet import ShiftWise, swnet
from tests.golden import test_convnext as convnext
from tests.golden import test_unireplknet as unireplknet
from tests.golden.rows import TABLE
from tests.models.weightless import on_meta

PATHS = 2


# A large kernel before, its shifts written as convolutions by ones.
ONE_HOT = {
    "Conv": PATHS + 3,
    "Gather": 2,  # what moves, and ghosts
    "Slice": 3,  # edges of the results, along each axis for the other, and along both
    "Pad": 2,
    "BatchNormalization": 3,
    "Add": (PATHS - 1) + 3,
    "Concat": 1,
}

STRIPS = {"Conv": 2, "Add": 1, "Gather": 2, "Concat": 1}


def network(version: int, depths: tuple[int, ...], moved: int) -> tuple[Counter, Counter]:
    """All but the large kernels, before and after: a ConvNeXt or a UniRepLKNet without them.

    In version 2 the norm behind the large kernel stays a depthwise 1x1 of the ghost channels.
    """
    blocks = sum(depths)
    if version == 1:
        before, after = convnext.training_form(depths), convnext.deploy_form(depths, moved)
        ghosts = 0
    else:
        kernels = tuple((3,) * depth for depth in depths)
        before = unireplknet.training_form(kernels)
        after = unireplknet.deploy_form(kernels, moved)
        ghosts = blocks
    gone = Counter(Conv=blocks)
    return Counter(before) - gone, Counter(after) - gone + Counter(Conv=ghosts)


def times(counts: dict[str, int], n: int) -> Counter:
    return Counter({op: n * count for op, count in counts.items()})


@pytest.mark.parametrize("name", TABLE["swnet"])
def test_every_large_kernel_is_two_strips(name):
    row, kwargs = TABLE["swnet"][name], ZOO[name].kwargs
    depths = kwargs["depths"]
    moved = 2 * sum(depths) - row["after"]["MatMul"]
    before, after = network(kwargs["version"], depths, moved)
    assert row["before"] == before + times(ONE_HOT, sum(depths))
    assert row["after"] == after + times(STRIPS, sum(depths))


def one_hot(name: str) -> list[tuple[int, int]]:
    """(numbers, multiplies at 224x224) of the convolutions by ones, for each large kernel."""
    found = []
    for stage, side in zip(on_meta(name).stages, (56, 28, 14, 7), strict=True):
        for block in stage:
            add = block.large_kernel.shift_add
            numbers = sum(table.numel() for table in (add.ones2, add.ones3, add.ones))
            found.append((numbers, numbers * side * side))
    return found


@pytest.mark.parametrize("name", TABLE["swnet"])
def test_ones_are_no_parameters(name):
    """The published figures leave out what shifting takes, which is gone after."""
    row, extra = TABLE["swnet"][name], one_hot(name)
    assert row["constants"] == sum(numbers for numbers, _ in extra)
    published = {"swnet_v1_tiny": 4.911, "swnet_tiny": 5.336, "swnet_small": 9.805}
    if name in published:
        multiplies = sum(count for _, count in extra)
        assert abs(row["gmac"][0] - multiplies / 1e9 - published[name]) < 0.0011


def optimized(way: str, height: int, width: int) -> flatfold.Optimized:
    """A large kernel with its shifts written in this way."""
    module = nn.Sequential(ShiftWise(12, Layout(13, 3, 8, 2), shift=way), nn.GELU())
    initialise(module, seed=0)
    return flatfold.optimize(module.eval(), input_shape=(12, height, width), dynamic_batch=True)


@pytest.mark.parametrize(
    "way",
    [
        "one_hot",
        "slice",
        *(pytest.param(w, marks=pytest.mark.slow) for w in ("deformable", "grid_sample")),
    ],
)
def test_every_shift_comes_down_to_strips(way):
    done = optimized(way, 17, 20)
    assert done.after.operators == {**STRIPS, "Gelu": 1}
    kernels = {tuple(n.inputs[1].shape) for n in done.graph.graph if n.op_type == "Conv"}
    assert kernels == {(8, 1, 3, 15), (8, 1, 15, 3)}
    assert done.equivalence.verdict == "certified"


@pytest.mark.slow
def test_what_rolls_is_strips_too_that_also_look_where_there_are_only_zeros():
    done = optimized("roll", 28, 28)
    assert done.after.operators == {**STRIPS, "Gelu": 1}
    assert done.equivalence.verdict == "certified"


@pytest.mark.parametrize(
    ("version", "sparsity"), [(2, 0.3), pytest.param(1, 0.0, marks=pytest.mark.slow)]
)
def test_a_small_one(version, sparsity):
    module = swnet(
        version=version,
        widths=(12,),
        depths=(1,),
        big=(13,),
        sparsity=sparsity,
        num_classes=10,
    )
    initialise(module, seed=0)
    done = flatfold.optimize(module.eval(), input_shape=(3, 67, 52), dynamic_batch=True)
    moved = 2 - done.after.operators["MatMul"]
    assert done.after.operators == network(version, (1,), moved)[1] + Counter(STRIPS)
    assert done.equivalence.verdict == "certified"
