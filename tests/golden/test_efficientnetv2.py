"""Every EfficientNetV2 loses its BatchNorms, and the paddings of TensorFlow; all else stays."""

from __future__ import annotations

from collections import Counter

import pytest

import flatfold
from flatfold.models import ZOO
from flatfold.models.efficientnetv2 import efficientnetv2
from flatfold.models.initialise import initialise
from tests.golden.rows import TABLE

STRIDED = 5  # the stem, and the first blocks of four stages


def deploy_form(depths: tuple[int, ...], widths: tuple[int, ...], stem: int) -> Counter[str]:
    """Of each SiLU and each gate a Sigmoid and a Mul."""
    plain, fused, inverted = depths[0], sum(depths[1:3]), sum(depths[3:])
    activations = 2 + plain + fused + 3 * inverted
    changes = [a != b for a, b in zip((stem, *widths), widths, strict=False)]
    strides = [False, True, True, True, False, True, False]
    firsts = sum(a or b for a, b in zip(changes, strides, strict=False))  # without a shortcut
    return Counter(
        {
            "Conv": 2 + plain + 2 * fused + 5 * inverted,
            "Sigmoid": activations + inverted,
            "Mul": activations + inverted,
            "ReduceMean": 1 + inverted,
            "Add": sum(depths) - firsts,
            "Gemm": 1,
            "Reshape": 1,
        }
    )


def training_form(deploy: Counter[str], inverted: int, tensorflow: bool) -> Counter[str]:
    """A BatchNorm after each convolution but the two of each gate."""
    norms = deploy["Conv"] - 2 * inverted
    form = Counter({**deploy, "BatchNormalization": norms, "Pad": STRIDED if tensorflow else 0})
    return +form


@pytest.mark.parametrize("name", TABLE["efficientnetv2"])
def test_every_norm_and_every_pad_is_folded(name):
    row, how = TABLE["efficientnetv2"][name], ZOO[name].kwargs
    deploy = deploy_form(how["depths"], how["widths"], how["stem"])
    assert row["after"] == deploy
    assert row["before"] == training_form(deploy, sum(how["depths"][3:]), how["tensorflow"])
    assert row["gmac"][0] == row["gmac"][1]


def test_counts_of_the_reference():
    rows = TABLE["efficientnetv2"]
    convs = {"s": 170, "m": 245, "l": 339, "xl": 438, "b0": 91, "b1": 111, "b2": 116, "b3": 136}
    shortcuts = {"s": 35, "m": 51, "l": 73, "xl": 94, "b0": 15, "b1": 21, "b2": 22, "b3": 26}
    for size, count in convs.items():
        for prefix in ("", "tf_"):
            after = rows[f"{prefix}efficientnetv2_{size}"]["after"]
            assert (after["Conv"], after["Add"]) == (count, shortcuts[size])


@pytest.mark.parametrize(("tensorflow", "size"), [(False, (45, 38)), (True, (64, 37))])
def test_a_small_one(tensorflow, size):
    """Under TensorFlow's padding an even side is padded at its end alone."""
    depths, widths = (2, 2, 1, 2, 1, 1), (16, 24, 24, 32, 40, 48)
    module = efficientnetv2(
        depths=depths, widths=widths, stem=16, head=256, tensorflow=tensorflow, num_classes=10
    )
    initialise(module, seed=0, gain=2.0)
    done = flatfold.optimize(module.eval(), input_shape=(3, *size), dynamic_batch=True)
    deploy = deploy_form(depths, widths, 16)
    assert done.before.operators == training_form(deploy, 4, tensorflow)
    assert done.after.operators == deploy
    assert done.equivalence.verdict == "certified"
    strided = [n for n in done.model.graph.node if _strides(n) == [2, 2]]
    assert len(strided) == STRIDED
    begins = [1 if side % 2 else 0 for side in size] if tensorflow else [1, 1]
    assert _attribute(strided[0], "pads") == [*begins, 1, 1]


def _strides(node):
    return _attribute(node, "strides") if node.op_type == "Conv" else None


def _attribute(node, name):
    return next((list(a.ints) for a in node.attribute if a.name == name), None)
