"""Every RepViT has one depthwise convolution for each RepVGGDW, and no BatchNorm in its head."""

from __future__ import annotations

import numpy as np
import pytest

import flatfold
from flatfold.models.initialise import initialise
from flatfold.models.repvit import repvit
from tests.golden.rows import TABLE

TAIL = {"Gemm": 1, "Reshape": 1}
# Of each: blocks that keep the size, and how many of these have a gate. Three more halve the size.
NETWORKS = {
    "repvit_m0_6": (14, 7),
    "repvit_m0_9": (23, 10),
    "repvit_m1_0": (23, 10),
    "repvit_m1_1": (21, 9),
    "repvit_m1_5": (39, 18),
    "repvit_m2_3": (51, 24),
}


def gates(count: int) -> dict[str, int]:
    """Operators of `count` gates but for their two convolutions."""
    means = {"ReduceMean": 1 + count}  # one is that of the head
    return {**means, "Relu": count, "Sigmoid": count, "Mul": count} if count else means


def training_form(blocks: int, gated: int, heads: int = 1) -> dict[str, int]:
    """What a network with so many blocks that keep the size has before."""
    every = blocks + 3
    return {
        "Conv": 2 + 4 * every + 2 * gated,
        "BatchNormalization": 2 + 4 * every + heads,
        "Add": 2 * blocks + every + (heads - 1),
        "Gelu": 1 + every,
        **gates(gated),
        **TAIL,
        "Gemm": heads,
        **({"Div": 1} if heads > 1 else {}),
    }


def deploy_form(blocks: int, gated: int) -> dict[str, int]:
    """What it has after: the Adds are the shortcuts around a GELU."""
    every = blocks + 3
    return {
        "Conv": 2 + 3 * blocks + 4 * 3 + 2 * gated,
        "Add": every,
        "Gelu": 1 + every,
        **gates(gated),
        **TAIL,
    }


@pytest.mark.parametrize("name", TABLE["repvit"])
def test_three_branches_and_the_norm_behind_them_become_one_conv(name):
    row = TABLE["repvit"][name]
    assert row["before"] == training_form(*NETWORKS[name])
    assert row["after"] == deploy_form(*NETWORKS[name])


def test_a_small_one_with_two_heads_at_an_odd_size():
    module = repvit(
        widths=(32, 40, 48, 56), gates=("1", "0", "", ""), distilled=True, num_classes=10
    )
    initialise(module, seed=0, gain=0.6)
    done = flatfold.optimize(module.eval(), input_shape=(3, 49, 70), dynamic_batch=True)
    assert done.before.operators == training_form(2, 1, heads=2)
    assert done.after.operators == deploy_form(2, 1)
    assert done.equivalence.verdict == "certified"
    (gemm,) = [node for node in done.graph.graph if node.op_type == "Gemm"]
    weight, bias = (value.const_value.numpy() for value in gemm.inputs[1:])
    expected = averaged(module.classifier.classifier, module.classifier.classifier_dist)
    terms = (8, 56 + 8)  # a norm's scale and a mean of two; for a bias 56 products besides
    for found, wanted, count in zip((weight, bias), expected, terms, strict=True):
        wanted = wanted if wanted.shape == found.shape else wanted.T
        bound = count * 2.0**-24 * np.abs(wanted).max()
        np.testing.assert_allclose(found, wanted, rtol=0, atol=bound)


def averaged(*heads):
    """Weight and bias of the mean of heads linear(BN(x))."""
    weights, biases = [], []
    for bn, linear in heads:
        scale = bn.weight / (bn.running_var + bn.eps).sqrt()
        weights.append(linear.weight * scale)
        biases.append(linear.weight @ (bn.bias - bn.running_mean * scale) + linear.bias)
    return [(sum(parts) / len(heads)).detach().numpy() for parts in (weights, biases)]
