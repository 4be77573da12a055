"""Every FastViT loses its branches, differences, layer scales and all its BatchNorms."""

from __future__ import annotations

import pytest

import flatfold
from flatfold.models.fastvit import fastvit
from flatfold.models.initialise import initialise
from tests.golden.rows import TABLE

TAIL = {"Gemm": 1, "ReduceMean": 2, "Relu": 1, "Sigmoid": 1}
# Of each: depths, width of the first stage, whether the last stage has attention, and parameters
# of what the authors' own conversion leaves.
NETWORKS = {
    "fastvit_t8": ((2, 2, 4, 2), 48, False, 3_996_040),
    "fastvit_t12": ((2, 2, 6, 2), 64, False, 7_508_840),
    "fastvit_s12": ((2, 2, 6, 2), 64, False, 9_428_712),
    "fastvit_sa12": ((2, 2, 6, 2), 64, True, 11_545_320),
    "fastvit_sa24": ((4, 4, 12, 4), 64, True, 21_501_288),
    "fastvit_sa36": ((6, 6, 18, 6), 64, True, 31_457_256),
    "fastvit_ma36": ((6, 6, 18, 6), 76, True, 43_984_632),
}


def attention(count: int) -> dict[str, int]:
    """Operators in `count` attentions that move data, and the Softmax."""
    moves = {"Softmax": count, "Slice": 3 * count, "Squeeze": 3 * count, "Transpose": 5 * count}
    return {"Reshape": 4 * count + 1, **(moves if count else {})}


def training_form(mixers: int, attentions: int) -> dict[str, int]:
    """What a network with so many blocks has before.

    In the sums: the stem of three blocks, the blocks, three times down, the tail with its gate.
    """
    blocks, encoding = mixers + attentions, int(attentions > 0)
    products = {"MatMul": 4 * attentions} if attentions else {}
    return {
        "Conv": 5 + 2 * mixers + encoding + 3 * blocks + 3 * 3 + (2 + 2),
        "BatchNormalization": 6 + 4 * mixers + attentions + blocks + 3 * 4 + 2,
        "Add": 3 + 3 * mixers + encoding + 2 * attentions + blocks + 3 * 2 + 1,
        "Sub": mixers,
        "Mul": mixers + 2 * attentions + blocks + 1,  # layer scales, queries, the gate
        "Gelu": 3 + blocks + 3 + 1,
        **products,
        **attention(attentions),
        **TAIL,
    }


def deploy_form(mixers: int, attentions: int) -> dict[str, int]:
    """What it has after: an Add for each shortcut that is left, and for the bias of q, k and v.

    The projection behind an attention is moved past the Transpose and becomes a convolution.
    """
    blocks, encoding = mixers + attentions, int(attentions > 0)
    products = {"MatMul": 3 * attentions} if attentions else {}
    return {
        "Conv": 3 + mixers + encoding + attentions + 3 * blocks + 3 * 2 + (1 + 2),
        "Add": blocks + 2 * attentions,
        "Mul": attentions + 1,  # queries, the gate
        "Gelu": 3 + blocks + 3 + 1,
        **products,
        **attention(attentions),
        **TAIL,
    }


def counts(depths: tuple[int, ...], attends: bool) -> tuple[int, int]:
    return (sum(depths[:3]), depths[3]) if attends else (sum(depths), 0)


@pytest.mark.parametrize("name", TABLE["fastvit"])
def test_all_that_is_linear_is_merged(name):
    depths, _, attends, _ = NETWORKS[name]
    row = TABLE["fastvit"][name]
    assert row["before"] == training_form(*counts(depths, attends))
    assert row["after"] == deploy_form(*counts(depths, attends))


@pytest.mark.parametrize("name", TABLE["fastvit"])
def test_less_is_left_than_by_the_published_conversion(name):
    """That keeps the norm behind each 7x7, each norm before an attention, and the layer scales."""
    depths, width, attends, published = NETWORKS[name]
    channels = [width << stage for stage in range(4) for _ in range(depths[stage])]
    # Of each block a norm's scale and a layer scale; before an attention a scale and a shift as
    # well as another layer scale, in place of which there is now a bias of q, k and v.
    saved = 2 * sum(channels) + (1 + 2 - 3) * sum(channels[-depths[3] :]) * attends
    assert TABLE["fastvit"][name]["parameters"][1] == published - saved


def test_a_small_one_with_attention_at_an_odd_size():
    module = fastvit(
        widths=(8, 16, 64, 256), depths=(1, 0, 1, 1), ratio=2, attention=True, num_classes=10
    )
    initialise(module, seed=0, gain=1.3)
    done = flatfold.optimize(module.eval(), input_shape=(3, 67, 90), dynamic_batch=True)
    assert done.before.operators == training_form(2, 1)
    assert done.after.operators == deploy_form(2, 1)
    assert done.equivalence.verdict == "certified"
