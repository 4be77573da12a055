"""Every block of YOLO becomes one convolution and its activation, with groups as without."""

from __future__ import annotations

import pytest

import flatfold
from flatfold.models import ZOO
from flatfold.models.initialise import initialise
from flatfold.models.yolo import LinearAddBlock, QARepVGGBlock, RepConv, yolo
from tests.golden.rows import TABLE

ACTIVATIONS = {"repconv": ("Sigmoid", "Mul"), "qarepvgg": ("Relu",), "csla": ("Relu",)}


def training_form(block: str, depths: tuple[int, ...]) -> dict[str, int]:
    """What a network of these blocks has before: a stem, and a block of stride 2 in each stage."""
    same = sum(depths)  # have an identity branch
    blocks = 1 + len(depths) + same
    row = dict.fromkeys(ACTIVATIONS[block], blocks)
    own = {
        "repconv": {"BatchNormalization": 2 * blocks + same, "Add": blocks + same},
        "qarepvgg": {"BatchNormalization": 2 * blocks, "Add": blocks + 2 * same},
        "csla": {"BatchNormalization": blocks, "Add": blocks + same, "Mul": 2 * blocks + same},
    }
    row |= own[block] | {"Conv": 2 * blocks + 1, "ReduceMean": 1}
    row["Add"] += 1  # the head has one of each
    row["Mul"] = row.get("Mul", 0) + 1
    return row | ({"AveragePool": same} if block == "qarepvgg" else {})


def deploy_form(block: str, depths: tuple[int, ...]) -> dict[str, int]:
    """What it has after. The head is a Gemm on the means: it is linear, and so are they."""
    blocks = 1 + len(depths) + sum(depths)
    row = dict.fromkeys(ACTIVATIONS[block], blocks)
    return {**row, "Conv": blocks, "ReduceMean": 1, "Gemm": 1}


@pytest.mark.parametrize("name", TABLE["yolo"])
def test_every_block_becomes_one_conv(name):
    row, known = TABLE["yolo"][name], ZOO[name].kwargs
    assert row["before"] == training_form(known["block"], known["depths"])
    assert row["after"] == deploy_form(known["block"], known["depths"])


def test_all_kinds_of_blocks_become_one_network():
    shapes = [(3, 16)]
    for width, depth in ((32, 2), (64, 4), (128, 6), (256, 2)):
        shapes += [(width // 2, width), *[(width, width)] * depth]
    weights = sum(9 * c_in * c_out + c_out for c_in, c_out in shapes) + 256 * 1000 + 1000
    assert {row["parameters"][1] for row in TABLE["yolo"].values()} == {weights}
    assert {tuple(row["gmac"]) for row in TABLE["yolo"].values()} == {(0.532, 0.468)}


@pytest.mark.parametrize(
    "block",
    [
        pytest.param("repconv", marks=pytest.mark.slow),
        "qarepvgg",
        pytest.param("csla", marks=pytest.mark.slow),
    ],
)
def test_a_small_one_at_an_odd_size(block):
    module = yolo(block=block, widths=(8, 12, 16), depths=(1, 1), num_classes=10)
    initialise(module, seed=0)
    done = flatfold.optimize(module.eval(), input_shape=(3, 33, 44), dynamic_batch=True)
    assert done.before.operators == training_form(block, (1, 1))
    assert done.after.operators == deploy_form(block, (1, 1))
    assert done.equivalence.verdict == "certified"


BLOCKS = {
    "repconv": lambda stride: RepConv(8, 8, stride, groups=4),
    "qarepvgg v1": lambda stride: QARepVGGBlock(8, 8, stride, groups=4, mean=False),
    "qarepvgg v2": lambda stride: QARepVGGBlock(8, 8, stride, groups=4),
    "csla": lambda stride: LinearAddBlock(8, 8, stride, groups=4),
}
SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("name", "stride"),
    [
        ("repconv", 1),
        pytest.param("repconv", 2, marks=SLOW),
        pytest.param("qarepvgg v1", 1, marks=SLOW),
        ("qarepvgg v2", 1),
        pytest.param("qarepvgg v2", 2, marks=SLOW),
        pytest.param("csla", 1, marks=SLOW),
    ],
)
def test_the_identity_of_a_grouped_block_stays_in_its_groups(name, stride):
    block = BLOCKS[name](stride)
    initialise(block, seed=1)
    done = flatfold.optimize(block.eval(), input_shape=(8, 7, 10))
    activation = dict.fromkeys(ACTIVATIONS[name.split()[0]], 1)
    assert done.after.operators == {"Conv": 1, **activation}
    assert done.after.parameters == 8 * 2 * 9 + 8
    assert done.equivalence.verdict == "certified"
