"""Graphs on which a rewrite was once wrong, or missed; each as small as it gets."""

from __future__ import annotations

from itertools import product

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import flatfold
from flatfold.passes.decline import Decline
from flatfold.passes.fold_batchnorm import read_batch_norm
from flatfold.passes.reading.layers import read_conv, read_conv_transpose
from tests.nets import Net, assert_same, assert_untouched, rewrite
from tests.passes.exported import diverse, moving
from tests.passes.exported.exporters import SMALL, WIDE, Case, operators, optimized
from tests.passes.test_border_bias import NONE, normed, written

ONE = {"Conv": 1, "Relu": 1}


def test_a_weight_that_was_summed_into_is_not_read_again():
    """Operands that may be summed a second time must not be summed into."""
    net = Net(seed=1)
    large = net.bn(net.conv(net.x, 6, 4, (7, 7), bias=False), 6)
    point = net.bn(net.conv(net.x, 6, 4, (1, 1), bias=False), 6)
    y, offset = normed(net, net.conv(net.x, 6, 4, (1, 1), bias=False), 6)
    y = net.op("AveragePool", written(net, y, offset, 3), kernel_shape=[7, 7], strides=[1, 1])
    done = rewrite(net.model(net.op("Relu", net.op("Sum", large, point, net.bn(y, 6)))))
    assert_same(done)
    assert done.ops == ONE


def test_a_shift_beyond_the_map():
    """A crop by more than the map has, then a Pad: nothing of the map is left."""
    net = Net((2, 102, 15, 18), dtype=np.float32)
    y = net.op("Gather", net.op("Tanh", net.x), net.const(np.arange(6) * 17), axis=1)
    y = net.op("Pad", y, net.const(np.array([0, 0, 0, 51, 0, 0, 0, 51])))
    y = net.op("Slice", y, *(net.const(np.array([n])) for n in (73, 89, 3)))
    done = rewrite(net.model(net.op("Relu", y)))
    assert onnx.shape_inference.infer_shapes(done.after, strict_mode=True)


def test_an_output_declared_with_names_for_its_known_sizes_reaches_a_fixed_point():
    """Both sides must be priced by the sizes that are known, not by those that are declared."""
    net = Net((2, 8, 9, 10))
    wide = net.op("Pad", net.op("Sigmoid", net.x), net.const(np.array([0, 0, 2, 2] * 2)))
    thin = net.conv(net.op("Tanh", wide), 8, 8, (5, 5), False, groups=8, pads=NONE)
    full = net.conv(net.op("Tanh", net.x), 8, 8, (5, 5), bias=False)
    model = net.model(net.op("Add", full, thin))
    for dim, name in zip(model.graph.output[0].type.tensor_type.shape.dim, "nchw", strict=True):
        dim.Clear()
        dim.dim_param = name
    assert_same(rewrite(model))


def test_a_norm_is_folded_even_if_the_choice_of_channels_before_it_stays():
    """One Conv over all 64 channels is dearer than the Gather and a Conv over 63."""
    net = Net((1, 64, 28, 28), dtype=np.float32)
    y = net.op("Gather", net.op("Tanh", net.x), net.const(np.r_[1, 1, 3:64]), axis=1)
    y = net.bn(net.conv(y, 64, 63, (3, 3), bias=False), 64)
    done = rewrite(net.model(net.op("Relu", y)))
    assert "BatchNormalization" not in done.ops


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("seed", range(4))
def test_pad_between_minus_and_plus_where_the_number_was_rounded(seed, dtype):
    """BN(x) - t has a bias of a few units in the last place of t, which counts as a bias."""
    net = Net(seed=seed, dtype=dtype)
    y, _ = normed(net, net.conv(net.x, 8, 4, (1, 1), bias=False), 8)
    gamma, beta, mean, variance = (net.constants[n] for n in net.nodes[-1].input[1:])
    scale = gamma / np.sqrt(variance + dtype(np.float32(1e-5)))
    edge = net.const((beta - mean * scale).reshape(1, -1, 1, 1))
    y = net.op("Pad", net.op("Sub", y, edge), net.const(np.array([0, 0, 1, 1] * 2)))
    y = net.conv(net.op("Add", y, edge), 4, 8, (3, 3), pads=NONE)
    assert rewrite(net.model(net.op("Relu", y))).ops == ONE


@pytest.mark.parametrize("seed", range(4))
def test_a_border_in_single_precision_where_the_number_cancels(seed):
    """t = beta - mean * s is rounded by u * (|beta| + |mean * s|), up to 50 u * |t| in practice."""
    net = Net((1, 64, 9, 8), seed=seed, dtype=np.float32)
    y, offset = normed(net, net.conv(net.x, 64, 64, (1, 1), bias=False), 64)
    border = written(net, y, offset, 1)
    for name, array in net.constants.items():  # Net makes them for a batch of two
        if array.shape[:2] == (2, 64):
            net.constants[name] = array[:1]
    y = net.conv(border, 64, 64, (3, 3), pads=NONE)
    assert rewrite(net.model(net.op("Relu", y))).ops == ONE


def test_a_value_whose_readers_all_end_in_one_sum():
    """Both strips read the small kernels' output, and end in one sum: two layers are enough."""
    net = Net((2, 16, 28, 28))
    parts = net.conv(net.x, 80, 16, (3, 3), bias=False, groups=16, pads=[2] * 4)
    strips = [
        net.conv(parts, 16, 80, k, bias=False, groups=16, pads=p)
        for k, p in (((1, 13), [0, 5, 0, 5]), ((13, 1), [5, 0, 5, 0]))
    ]
    cut = [
        net.op("Slice", v, *(net.const(np.array([n])) for n in (1, -1, axis)))
        for v, axis in zip(strips, (2, 3), strict=True)
    ]
    done = rewrite(net.model(net.op("Relu", net.op("Add", *cut))))
    assert_same(done)
    assert done.ops == {"Conv": 2, "Add": 1, "Relu": 1}


class SinglePrecision(nn.Module):
    """Makes a weight where it is needed, in single precision."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(self.conv(x), torch.ones(4, 1, 1, 1), groups=4)


def test_a_module_that_cannot_run_in_double_precision_has_another_reference():
    """Its forward makes tensors of single precision."""
    done = flatfold.optimize(SinglePrecision().eval(), input_shape=(4, 8, 8))
    assert done.equivalence.passed


class Padded(diverse.BNAndPad):
    """BN(x) - t, padded by zeros, + t."""

    def forward(self, x: Tensor) -> Tensor:
        bn = self.bn
        edge = bn.bias - bn.running_mean * bn.weight / torch.sqrt(bn.running_var + bn.eps)
        edge = edge.detach().view(1, -1, 1, 1)
        return F.pad(bn(x) - edge, [self.pad] * 4) + edge


# Each value of each parameter once; all 24 take as long as every other test of the passes.
QUICK = {
    (3, diverse.BNAndPad, SMALL, "new, static"),
    (5, Padded, SMALL, "new, dynamic"),
    (3, Padded, WIDE, "legacy, static"),
}
BLOCKS = [
    pytest.param(*block, marks=() if block in QUICK else pytest.mark.slow)
    for block in product(
        (3, 5),
        (diverse.BNAndPad, Padded),
        (SMALL, WIDE),
        ("new, static", "new, dynamic", "legacy, static"),
    )
]


@pytest.mark.parametrize(("k", "padding", "channels", "way"), BLOCKS)
def test_diverse_branch_blocks(k, padding, channels, way, monkeypatch):
    monkeypatch.setattr(diverse, "BNAndPad", padding)
    done = optimized(Case(lambda c: diverse.dense(c, k, 1), ONE), channels, way)
    assert operators(done) == ONE


def test_grid_sample_of_an_open_batch():
    """The grid is a constant, repeated for each image: Shape, Concat, Expand."""
    done = optimized(moving.CASES["sampled beside conv"], SMALL, "new, dynamic")
    assert operators(done) == ONE


def test_a_sum_that_broadcasts_over_another_rank():
    """What is the same in both layouts must not be taken for a map with as many axes."""
    net = Net()
    mask = net.op("Tanh", net.op("ReduceMean", net.x, net.const([0, 1]), keepdims=0))
    done = rewrite(net.model(net.op("Add", net.op("Tanh", net.x), mask)))
    assert_untouched(done)
    assert "BROADCAST" in done.codes


def test_a_norm_whose_constants_have_other_shapes_is_left():
    """A branch that is never taken may have one, which nobody has run."""
    net = Net()
    one, other = net.const(np.ones(4)), net.const(np.ones((2, 4, 1)))
    y = net.op("BatchNormalization", net.conv(net.x, 4, 4, (1, 1)), one, one, other, one)
    norm = ir.from_proto(net.model(y)).graph[1]
    with pytest.raises(Decline, match=r"\(2, 4, 1\)"):
        read_batch_norm(norm)


@pytest.mark.parametrize(
    ("kind", "read"), [("Conv", read_conv), ("ConvTranspose", read_conv_transpose)]
)
def test_a_layer_whose_bias_has_another_shape_is_left(kind, read):
    net = Net()
    weight, bias = net.const(np.ones((4, 4, 1, 1))), net.const(np.array(1.0))
    layer = ir.from_proto(net.model(net.op(kind, net.x, weight, bias))).graph[0]
    with pytest.raises(Decline, match="a bias of shape"):
        read(layer)
