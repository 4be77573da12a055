"""Merging parallel branches, on graphs that never heard of the networks they come from."""

from __future__ import annotations

import numpy as np
import pytest

from tests.nets import Net, assert_same, assert_untouched, rewrite


def branch(net: Net, kernel, c=4, groups=1, **how) -> str:
    return net.bn(net.conv(net.x, c, 4, kernel, False, groups, **how), c)


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("shape", [(2, 4, 9, 8), (1, 4, 1, 1), (1, 4, 2, 3)])
def test_conv_conv_and_identity_each_with_batchnorm(groups, shape):
    """RepVGG: 3x3 + 1x1 + identity, grouped, on maps smaller than the kernel too."""
    net = Net(shape)
    y = net.op("Add", branch(net, (3, 3), groups=groups), branch(net, (1, 1), groups=groups))
    y = net.op("Add", y, net.bn(net.x, 4))
    done = rewrite(net.model(net.op("Relu", y)))
    assert done.ops == {"Conv": 1, "Relu": 1}
    assert done.applied == ["merge-branches"]
    assert_same(done)


@pytest.mark.parametrize("strides", [[1, 1], [2, 2], [1, 2]])
def test_asymmetric_kernels_join_the_square_one(strides):
    """ACNet: KxK + Kx1 + 1xK."""
    net = Net()
    parts = [branch(net, kernel, 6, strides=strides) for kernel in [(3, 3), (3, 1), (1, 3)]]
    done = rewrite(net.model(net.op("Relu", net.op("Sum", *parts))))
    assert done.ops == {"Conv": 1, "Relu": 1}
    assert_same(done)


def test_branches_that_crop_their_input():
    """ACNet without padding: the 1-D branches see a smaller picture."""
    net = Net()

    def crop(axis):
        one, minus = net.const(np.array([1])), net.const(np.array([-1]))
        return net.op("Slice", net.x, one, minus, net.const(np.array([axis])))

    parts = [net.conv(net.x, 4, 4, (3, 3), pads=[0] * 4)]
    parts.append(net.conv(crop(3), 4, 4, (3, 1), pads=[0] * 4))
    parts.append(net.conv(crop(2), 4, 4, (1, 3), pads=[0] * 4))
    done = rewrite(net.model(net.op("Relu", net.op("Sum", *(net.bn(p, 4) for p in parts)))))
    assert done.ops == {"Conv": 1, "Relu": 1}
    assert_same(done)


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("kernel", [(1, 1), (3, 3)])
def test_many_equal_branches(groups, kernel):
    """MobileOne: k copies of the same kernel, a 1x1, an identity, and a zero to begin with."""
    net = Net()
    y = net.op("Add", branch(net, kernel, groups=groups), net.const(np.zeros(())))
    for _ in range(4):
        y = net.op("Add", y, branch(net, kernel, groups=groups))
    y = net.op("Add", net.op("Add", y, branch(net, (1, 1), groups=groups)), net.bn(net.x, 4))
    done = rewrite(net.model(net.op("Relu", y)))
    assert done.ops == {"Conv": 1, "Relu": 1}
    assert_same(done)


def test_outer_batchnorm_after_the_sum():
    """RepViT: the sum has a norm of its own, and one branch is a bare identity."""
    net = Net()
    y = net.op("Add", branch(net, (3, 3), groups=4), net.conv(net.x, 4, 4, (1, 1), groups=4))
    done = rewrite(net.model(net.op("Relu", net.bn(net.op("Add", y, net.x), 4))))
    assert done.ops == {"Conv": 1, "Relu": 1}
    assert len(done.applied) == 1
    assert_same(done)


def test_scaled_difference_added_to_the_input():
    """FastViT: x + s * (M(x) - N(x))."""
    net = Net()
    mixed = net.op("Add", branch(net, (3, 3), groups=4), branch(net, (1, 1), groups=4))
    difference = net.op("Sub", net.op("Add", mixed, net.bn(net.x, 4)), net.bn(net.x, 4))
    scaled = net.op("Mul", net.const(net.rng.standard_normal((4, 1, 1))), difference)
    done = rewrite(net.model(net.op("Relu", net.op("Add", net.x, scaled))))
    assert done.ops == {"Conv": 1, "Relu": 1}
    assert_same(done)


def test_dilated_branches_join_the_large_kernel():
    """UniRepLKNet: dilated 3x3 kernels inside a 7x7."""
    net = Net((1, 4, 11, 10))
    parts = [branch(net, (7, 7), groups=4)]
    for k, r in [(5, 1), (3, 2), (3, 3)]:
        pads = [r * (k - 1) // 2] * 4
        parts.append(branch(net, (k, k), groups=4, dilations=[r, r], pads=pads))
    done = rewrite(net.model(net.op("Relu", net.op("Sum", *parts))))
    assert done.ops == {"Conv": 1, "Relu": 1}
    assert_same(done)


def test_average_pool_of_stride_two_on_even_maps():
    """ParNet: AveragePool 2x2 then 1x1 beside a 3x3 of stride 2."""
    for shape, convs in [((1, 4, 8, 6), 1), ((1, 4, "h", 6), 2)]:
        net = Net(shape)
        pool = net.op("AveragePool", net.x, kernel_shape=[2, 2], strides=[2, 2])
        small = net.bn(net.conv(pool, 8, 4, (1, 1), False), 8)
        y = net.op("Add", branch(net, (3, 3), 8, strides=[2, 2]), small)
        done = rewrite(net.model(net.op("Relu", y)))
        assert done.ops["Conv"] == convs
        assert_same(done, (1, 4, 8, 6))


def test_terms_that_read_something_else_stay_in_the_sum():
    net = Net()
    other = net.op("Relu", net.x)
    y = net.op("Sum", other, branch(net, (3, 3)), net.conv(other, 4, 4, (1, 1)), net.x)
    done = rewrite(net.model(net.op("Relu", y)))
    assert done.ops == {"Conv": 2, "Add": 1, "Relu": 2}
    assert_same(done)


@pytest.mark.parametrize(("nesting", "seed"), [("left", 0), ("right", 1), ("balanced", 2)])
def test_any_nesting_of_sums_and_signs(nesting, seed):
    net = Net(seed=seed)
    a, b, c, d = (branch(net, k) for k in [(3, 3), (1, 1), (5, 5), (1, 3)])
    if nesting == "left":
        y = net.op("Sub", net.op("Add", net.op("Sub", a, b), c), d)
    elif nesting == "right":
        y = net.op("Sub", a, net.op("Sub", b, net.op("Add", c, net.op("Neg", d))))
    else:
        y = net.op("Sum", net.op("Sub", a, b), net.op("Add", c, d))
    done = rewrite(net.model(net.op("Relu", y)))
    assert done.ops == {"Conv": 1, "Relu": 1}
    assert_same(done)


def test_twice_the_same_value():
    net = Net()
    y = net.conv(net.x, 4, 4, (3, 3))
    done = rewrite(net.model(net.op("Relu", net.op("Add", y, y))))
    assert_same(done)
    again = rewrite(done.after)
    assert_untouched(again)


def test_a_residual_of_another_value_is_left_with_its_reason():
    net = Net()
    y = net.op("Relu", net.conv(net.x, 4, 4, (3, 3)))
    done = rewrite(net.model(net.op("Relu", net.op("Add", y, net.op("Sigmoid", net.x)))))
    assert_untouched(done)
    assert "SOURCES" in done.codes


def test_a_sum_that_broadcasts_is_left():
    net = Net()
    pooled = net.op("GlobalAveragePool", net.x)
    done = rewrite(net.model(net.op("Add", net.conv(pooled, 4, 4, (1, 1)), net.x)))
    assert_untouched(done)
    assert "BROADCAST" in done.codes


def test_a_sum_of_unknown_sizes_from_two_inputs_is_left():
    net = Net(("n", 4, "h", "w"))
    other = net.op("MaxPool", net.x, kernel_shape=[2, 2])
    y = net.op("Add", net.conv(net.x, 4, 4, (2, 2), pads=[0] * 4), net.conv(other, 4, 4, (1, 1)))
    done = rewrite(net.model(y))
    assert_untouched(done)


def test_pooling_that_leaves_the_padding_out_is_left():
    net = Net()
    pool = net.op("AveragePool", net.x, kernel_shape=[3, 3], pads=[1] * 4)
    done = rewrite(net.model(net.op("Relu", net.op("Add", pool, branch(net, (3, 3))))))
    assert done.ops["AveragePool"] == 1
    assert "COUNT-PAD" in done.codes
    assert_same(done)


def test_a_gated_branch_is_not_linear():
    """ParNet's stream block: the identity is multiplied by a gate that depends on data."""
    net = Net()
    identity = net.bn(net.x, 4)
    gate = net.op("Sigmoid", net.conv(net.op("GlobalAveragePool", identity), 4, 4, (1, 1)))
    y = net.op("Add", branch(net, (3, 3)), branch(net, (1, 1)))
    done = rewrite(net.model(net.op("Add", y, net.op("Mul", identity, gate))))
    assert done.ops["Conv"] == 2
    assert done.ops["BatchNormalization"] == 1
    assert_same(done)


def test_a_merge_that_costs_more_than_it_saves_is_declined_with_its_ratio():
    """Two strips of 1x51 and 51x1 could be one dense 51x51: exact, and a bad idea."""
    net = Net((1, 4, 64, 64))
    y = net.op("Add", branch(net, (51, 3), groups=4), branch(net, (3, 51), groups=4))
    done = rewrite(net.model(net.op("Relu", y)))
    assert done.ops["Conv"] == 2
    assert done.ops["BatchNormalization"] == 0
    assert any("multiplies" in r.reason for r in done.remarks if r.code == "COST")
    assert_same(done)


def test_matrices_merge_too():
    net = Net((3, 4))
    a = net.op("Gemm", net.x, net.const(net.rng.standard_normal((4, 4))))
    b = net.op("MatMul", net.x, net.const(net.rng.standard_normal((4, 4))))
    done = rewrite(net.model(net.op("Relu", net.op("Sum", a, b, net.bn(net.x, 4)))))
    assert done.ops == {"Gemm": 1, "Relu": 1}
    assert_same(done)


@pytest.mark.parametrize("axes", [1, 3])
def test_one_and_three_spatial_axes(axes):
    net = Net((2, 4, 6, 5, 7)[: axes + 2])
    y = net.op("Add", branch(net, (3,) * axes), branch(net, (1,) * axes))
    done = rewrite(net.model(net.op("Relu", net.op("Add", y, net.bn(net.x, 4)))))
    assert done.ops == {"Conv": 1, "Relu": 1}
    assert_same(done)


def test_dynamic_batch_and_size():
    net = Net(("n", 4, "h", "w"))
    y = net.op("Add", branch(net, (3, 3), strides=[2, 2]), branch(net, (1, 1), strides=[2, 2]))
    done = rewrite(net.model(net.op("Relu", y)))
    assert done.ops == {"Conv": 1, "Relu": 1}
    for shape in [(1, 4, 7, 7), (3, 4, 8, 5), (1, 4, 1, 1)]:
        assert_same(done, shape)


def test_a_pool_whose_stride_skips_the_end_of_an_axis_keeps_its_auto_pad():
    """ONNX Runtime reads rows 2 and 8 of 12 there for SAME_UPPER, and a Conv rows 0 and 6."""
    net = Net((1, 4, 12, 4))
    pooled = net.op(
        "AveragePool", net.x, kernel_shape=[1, 2], strides=[6, 2], auto_pad="SAME_UPPER"
    )
    done = rewrite(net.model(net.op("Relu", net.conv(pooled, 4, 4, (1, 1)))))
    assert_untouched(done)
    assert "AUTO-PAD" in done.codes


def test_a_pool_whose_window_is_larger_than_the_map_stays():
    """ONNX Runtime divides by the whole window there, and a Conv has no output."""
    net = Net((1, 4, 1, 5))
    pooled = net.op("AveragePool", net.x, kernel_shape=[2, 1], strides=[2, 1])
    done = rewrite(net.model(net.op("Relu", net.bn(pooled, 4))))
    assert_untouched(done)
    assert "SHAPE" in done.codes


@pytest.mark.parametrize(
    ("size", "front", "kernel", "stays"),
    [("h", "Tanh", 2, True), (8, "Tanh", 2, False), ("h", "Pad", 3, False), ("h", "Pad", 4, True)],
)
def test_a_pool_whose_window_may_be_larger_than_an_open_map_stays(size, front, kernel, stays):
    """A map that is padded by one on either side has three pixels at least."""
    net = Net((1, 4, size, size))
    pads = [net.const(np.array([0, 0, 1, 1] * 2))] if front == "Pad" else []
    y = net.op(front, net.x, *pads)
    pooled = net.op("AveragePool", y, kernel_shape=[kernel] * 2, strides=[kernel] * 2)
    done = rewrite(net.model(net.op("Relu", net.bn(pooled, 4))))
    assert (done.ops["AveragePool"] == 1) == stays
    assert ("SHAPE" in done.codes) == stays
    for pixels in (1, 2, 7) if front == "Pad" and not stays else (8,):
        assert_same(done, (1, 4, pixels, pixels))


def test_auto_pad_is_read():
    for mode in ("SAME_UPPER", "SAME_LOWER"):
        net = Net()
        y = net.conv(net.x, 4, 4, (2, 2), auto_pad=mode)
        done = rewrite(net.model(net.op("Relu", net.op("Add", y, net.bn(net.x, 4)))))
        assert done.ops == {"Conv": 1, "Relu": 1}
        assert_same(done)


def test_a_sum_of_what_costs_nothing_divides_by_no_cost():
    """The parts of a Split, joined again, plus 0."""
    net = Net((2, 5))
    first = net.op("Split", net.x, net.const(np.array([3, 2])), outputs=2, axis=1)
    whole = net.op("Concat", first, f"{first}_1", axis=1)
    done = rewrite(net.model(net.op("Add", whole, net.const(np.array(0.0)))))
    assert_same(done)
