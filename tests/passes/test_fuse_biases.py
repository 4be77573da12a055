"""A matrix product and its bias between two views become a Gemm between two others."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

import flatfold
from tests.nets import Net, assert_same, assert_untouched, rewrite

SHAPE = (2, 6, 4, 8)


def viewed(net: Net, x: str, *sizes: int, **attributes: int) -> str:
    return net.op("Reshape", x, net.const(np.array(sizes, np.int64)), **attributes)


def windows(net: Net) -> str:
    """[2, 6, 4, 8] as windows of 2 x 2 pixels: [12, 4, 8]."""
    x = net.op("Transpose", viewed(net, net.x, 2, 3, 2, 2, 2, 8), perm=[0, 1, 3, 2, 4, 5])
    return viewed(net, x, -1, 4, 8)


def product(net: Net, x: str, columns: int = 5, bias: tuple[int, ...] | None = (5,)) -> str:
    y = net.op("MatMul", x, net.const(net.rng.normal(size=(8, columns))))
    return y if bias is None else net.op("Add", y, net.const(net.rng.normal(size=bias)))


@pytest.mark.parametrize("bias", [(5,), (1, 5), (1, 1, 5)])
@pytest.mark.parametrize("sizes", [(2, 3, 2, 20), (2, -1, 20), (0, 2, 10), (-1, 0, 5)])
def test_a_bias_between_views_is_a_gemm(bias, sizes):
    net = Net(SHAPE)
    done = rewrite(net.model(viewed(net, product(net, windows(net), bias=bias), *sizes)))
    assert done.applied == ["fuse-biases"]
    assert done.ops["Gemm"] == 1 and not done.ops["MatMul"] and not done.ops["Add"]
    assert_same(done)


@pytest.mark.parametrize("first", [True, False])
def test_the_bias_may_come_first(first):
    net = Net(SHAPE)
    y = net.op("MatMul", windows(net), net.const(net.rng.normal(size=(8, 5))))
    b = net.const(net.rng.normal(size=5))
    done = rewrite(net.model(viewed(net, net.op("Add", *((b, y) if first else (y, b))), 2, -1, 5)))
    assert done.ops["Gemm"] == 1
    assert_same(done)


def test_it_is_certified_and_a_second_run_changes_nothing():
    net = Net(SHAPE, dtype=np.float32)
    model = net.model(viewed(net, product(net, windows(net)), 2, -1, 20))
    result = flatfold.optimize(model, verify="certify")
    assert result.equivalence.verdict == "certified"
    assert [entry.certified for entry in result.changes if entry.rewrite == "fuse-biases"] == [True]
    again = flatfold.optimize(result.model, verify="off")
    assert not any(remark.applied for remark in again.remarks)


def test_an_open_number_of_images_stays_open():
    net = Net(("batch", *SHAPE[1:]))
    done = rewrite(net.model(viewed(net, product(net, viewed(net, net.x, -1, 4, 8)), 0, 20)))
    assert done.ops["Gemm"] == 1
    for batch in (1, 3):
        assert_same(done, (batch, *SHAPE[1:]))


def test_other_rewrites_come_first():
    """A scale behind the bias goes into the product, which only then becomes a Gemm."""
    net = Net(SHAPE)
    y = net.op("Mul", product(net, windows(net)), net.const(net.rng.normal(size=5)))
    done = rewrite(net.model(viewed(net, y, 2, -1, 5)))
    assert done.applied[-1] == "fuse-biases" and len(done.applied) == 2
    assert done.ops["Gemm"] == 1 and not done.ops["Mul"]
    assert_same(done)


def read_twice(net: Net, which: str) -> list[str]:
    x = windows(net)
    y = net.op("MatMul", x, net.const(net.rng.normal(size=(8, 5))))
    z = net.op("Add", y, net.const(net.rng.normal(size=5)))
    return [viewed(net, z, 2, -1, 5), net.op("Relu", {"view": x, "product": y, "sum": z}[which])]


@pytest.mark.parametrize("which", ["view", "product", "sum"])
def test_what_is_read_elsewhere_stays(which):
    net = Net(SHAPE)
    assert_untouched(rewrite(net.model(*read_twice(net, which)), "fuse-biases"))


@pytest.mark.parametrize("bias", [(4, 5), (4, 1), (12, 1, 5), (1, 12, 4, 5), (1,)])
def test_a_bias_that_varies_elsewhere_stays(bias):
    net = Net(SHAPE)
    y = viewed(net, product(net, windows(net), bias=bias), -1, 5)
    assert_untouched(rewrite(net.model(y), "fuse-biases"))


def test_a_view_of_computed_sizes_stays():
    net = Net(SHAPE)
    y = product(net, windows(net))
    sizes = net.op("Concat", net.op("Shape", net.x), net.const(np.array([-1])), axis=0)
    cut = net.op("Slice", sizes, *(net.const(np.array([n])) for n in (3, 5)))
    done = rewrite(net.model(net.op("Reshape", y, cut)), "fuse-biases")
    assert done.ops["Gemm"] == 0


def test_a_product_of_two_axes_is_left_to_others():
    net = Net((6, 8))
    y = product(net, viewed(net, net.x, 6, 8))
    assert_untouched(rewrite(net.model(viewed(net, y, 3, 2, 5)), "fuse-biases"))


def test_an_allowed_zero_is_no_copy():
    """The dynamo exporter allows zeros everywhere, which says nothing where there are none."""
    net = Net(SHAPE)
    done = rewrite(net.model(viewed(net, product(net, windows(net)), 2, 24, 5, allowzero=1)))
    assert done.ops["Gemm"] == 1
    assert_same(done)
    net = Net((0, *SHAPE[1:]))
    y = product(net, viewed(net, net.x, 0, 24, 8, allowzero=1))
    done = rewrite(net.model(viewed(net, y, 0, 24, 5, allowzero=1)), "fuse-biases")
    assert_untouched(done)


def test_types_stay():
    net = Net(SHAPE, dtype=np.float16)
    done = rewrite(net.model(viewed(net, product(net, windows(net)), 2, -1, 5)))
    assert done.ops["Gemm"] == 1
    graph = ir.from_proto(done.after).graph
    assert graph.outputs[0].dtype == ir.DataType.FLOAT16
