"""Every UniRepLKNet loses its dilated kernels and all its BatchNorms, and keeps its gates."""

from __future__ import annotations

import pytest

import flatfold
from flatfold.models import ZOO
from flatfold.models.initialise import initialise
from flatfold.models.unireplknet import unireplknet
from tests.golden.rows import TABLE

Kernels = tuple[tuple[int, ...], ...]


def unchanged(blocks: int, norms: int) -> dict[str, int]:
    """What stays of blocks, of norms that are written out, and of the head.

    The means that the norms take off are in the layers in front of them.
    """
    return {
        "Transpose": 2 * blocks,
        "Gelu": blocks + 1,
        "Relu": blocks,
        "Sigmoid": blocks,
        "ReduceL2": blocks,
        "ReduceMean": 2 * blocks + norms + 1,  # gate and response; variance; head
        "Div": blocks + norms,
        "Pow": norms,
        "Sqrt": norms,
        "LayerNormalization": 1,
        "Gemm": 1,
    }


def training_form(kernels: Kernels) -> dict[str, int]:
    """What a network with these kernels in its stages has before."""
    blocks, norms = sum(map(len, kernels)), len(kernels) + 1
    dilated = 5 * sum(kernel == 13 for stage in kernels for kernel in stage)
    large = dilated // 5
    form = unchanged(blocks, norms)
    return {
        **form,
        "ReduceMean": form["ReduceMean"] + norms,
        "Sub": norms,
        "Conv": norms + 3 * blocks + dilated,  # ways down; large, and two in the gate; dilated
        "BatchNormalization": 2 * blocks + large + dilated,
        "MatMul": 2 * blocks,
        # In a block: shortcut, bias, response (epsilon, + 1, beta). In a norm: epsilon, bias.
        "Add": 5 * blocks + dilated + 2 * norms,
        "Mul": 4 * blocks + norms,  # gate, response (gamma, x), layer scale; scale of a norm
    }


def deploy_form(kernels: Kernels, moved: int) -> dict[str, int]:
    """What it has after: no BatchNorm and one convolution for each large kernel.

    The beta of the response norm, the BatchNorm and the layer scale are in the second linear
    layer, of which `moved` have become 1x1 convolutions behind the Transpose. Scale and bias of
    each norm that is written out, in front of a padded kernel, are one depthwise 1x1.
    """
    blocks, norms = sum(map(len, kernels)), len(kernels) + 1
    return {
        **unchanged(blocks, norms),
        "Conv": norms + 3 * blocks + moved + norms,
        "MatMul": 2 * blocks - moved,
        "Add": blocks + (2 * blocks - moved) + 2 * blocks + norms,
        "Mul": 3 * blocks,
    }


@pytest.mark.parametrize("name", TABLE["unireplknet"])
def test_every_norm_and_every_dilated_kernel_is_folded(name):
    row, kwargs = TABLE["unireplknet"][name], ZOO[name].kwargs
    kernels, widths = kwargs["kernels"], kwargs["widths"]
    assert row["before"] == training_form(kernels)
    assert row["after"] == deploy_form(kernels, moved=sum(map(len, kernels)))
    published = {  # of the authors' deploy form, whose last norm keeps its bias
        "unireplknet_a": 4_437_300,
        "unireplknet_f": 6_235_216,
        "unireplknet_p": 10_741_704,
        "unireplknet_n": 18_318_560,
        "unireplknet_t": 31_037_980,
        "unireplknet_s": 55_645_984,
    }
    assert row["parameters"][1] == published[name] - widths[-1]


def test_a_small_one_with_kernels_larger_than_its_maps():
    kernels = ((3,), (13, 3))
    module = unireplknet(widths=(8, 12), kernels=kernels, num_classes=10)
    initialise(module, seed=0)
    done = flatfold.optimize(module.eval(), input_shape=(3, 29, 38), dynamic_batch=True)
    assert done.before.operators == training_form(kernels)
    assert done.after.operators == deploy_form(kernels, moved=3)
    assert done.equivalence.verdict == "certified"
