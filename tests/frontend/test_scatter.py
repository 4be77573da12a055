"""ScatterND and ScatterElements, as exporters write them, and writes of no box."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from flatfold.frontend import canonicalize
from tests.frontend.assertions import assert_same_function
from tests.frontend.execution import counts, from_text, run


def scatter(
    indices: NDArray[np.int64],
    data: str = "float[2, 4, 5] x",
    updates: str = "float[2, 2, 5] u",
    call: str = "ScatterND (x, i, u)",
) -> ir.Model:
    """A graph of one write, at constant `indices`."""
    sizes = ", ".join(str(size) for size in indices.shape)
    items = ", ".join(str(item) for item in indices.ravel())
    shape = data.split()[0] + " " + " ".join(data.split()[1:-1])
    return from_text(
        f"""g ({data}, {updates}) => ({shape} y) <int64[{sizes}] i = {{{items}}}> {{
            y = {call}
        }}"""
    )


def box(*spans: tuple[int, int]) -> NDArray[np.int64]:
    """The indices of a box, given by start and end along each axis."""
    axes = np.meshgrid(*[np.arange(start, end) for start, end in spans], indexing="ij")
    return np.stack(axes, -1)


@pytest.mark.parametrize(
    ("start", "nodes"),
    [
        (0, {"Concat": 1, "Slice": 1}),
        (1, {"Concat": 1, "Slice": 2}),
        (2, {"Concat": 1, "Slice": 1}),
    ],
)
def test_a_range_of_one_axis(start: int, nodes: dict[str, int]) -> None:
    model = scatter(box((0, 2), (start, start + 2)))
    assert_same_function(model)
    assert counts(model) == nodes


def test_negative_indices() -> None:
    model = scatter(box((0, 2), (-2, 0)))
    assert_same_function(model)
    assert counts(model) == {"Concat": 1, "Slice": 1}


def test_the_whole_tensor() -> None:
    model = scatter(box((0, 2), (0, 4)), updates="float[2, 4, 5] u")
    assert_same_function(model)
    assert counts(model) == {"Identity": 1}  # an output that is an input


def test_two_axes_are_nested() -> None:
    model = scatter(box((0, 2), (1, 3), (0, 4)), updates="float[2, 2, 4] u")
    assert_same_function(model)
    assert counts(model) == {"Concat": 2, "Slice": 3}


def test_integers() -> None:
    model = scatter(box((0, 1)), "int64[3] x", "int64[1] u")
    feeds = {"x": np.arange(3), "u": np.array([7])}
    canonicalize(model)
    assert counts(model) == {"Concat": 1, "Slice": 1}
    assert run(model, feeds)[0].tolist() == [7, 1, 2]


def test_elements() -> None:
    indices = np.broadcast_to(np.arange(1, 3)[None, :, None], (2, 2, 5))
    model = scatter(indices, call="ScatterElements <axis = -2> (x, i, u)")
    assert_same_function(model)
    assert counts(model) == {"Concat": 1, "Slice": 2}


def test_elements_of_a_corner() -> None:
    """Along the other axes the box starts at 0 and may end early."""
    indices = np.broadcast_to(np.arange(1, 3)[None, :, None], (2, 2, 3))
    call = "ScatterElements <axis = 1> (x, i, u)"
    model = scatter(indices, updates="float[2, 2, 3] u", call=call)
    assert_same_function(model)
    assert counts(model) == {"Concat": 2, "Slice": 3}


def test_elements_of_one_row_of_a_dynamic_batch() -> None:
    model = from_text(
        """g (float[N, 4, 5] x, float[N, 1, 5] u) => (float[N, 4, 5] y)
        <int64[1, 1, 1] row = {2}> {
            s = Shape (u)
            i = Expand (row, s)
            y = ScatterElements <axis = 1> (x, i, u)
        }"""
    )
    assert_same_function(model)
    assert counts(model) == {"Concat": 1, "Slice": 2}


def test_between_transposes() -> None:
    model = from_text(
        """g (float[N, 4, 5] x, float[N, 2, 5] u) => (float[N, 4, 5] y)
        <int64[2, 1] i = {1, 2}> {
            xt = Transpose <perm = [1, 2, 0]> (x)
            ut = Transpose <perm = [1, 2, 0]> (u)
            yt = ScatterND (xt, i, ut)
            y = Transpose <perm = [2, 0, 1]> (yt)
        }"""
    )
    assert_same_function(model)
    assert counts(model) == {"Concat": 1, "Slice": 2}


def test_a_value_between_transposes_may_have_other_readers() -> None:
    model = from_text(
        """g (float[2, 4, 5] x, float[2, 2, 5] u) => (float[4, 5, 2] yt, float[2, 4, 5] z)
        <int64[2, 1] i = {1, 2}> {
            xt = Transpose <perm = [1, 2, 0]> (x)
            ut = Transpose <perm = [1, 2, 0]> (u)
            yt = ScatterND (xt, i, ut)
            y = Transpose <perm = [2, 0, 1]> (yt)
            z = Add (y, x)
        }"""
    )
    assert_same_function(model)
    assert counts(model) == {"Concat": 1, "Slice": 2, "Transpose": 1, "Add": 1}


@pytest.mark.parametrize(
    "zeros",
    [
        "n = Shape (x)  z = ConstantOfShape (n)",
        "n = Shape (x)  zero = Constant <value = float {0.0}> ()  z = Expand (zero, n)",
    ],
)
def test_into_zeros_is_a_pad(zeros: str) -> None:
    model = from_text(
        f"""g (float[N, 4, 5] x, float[2, N, 5] u) => (float[4, N, 5] y)
        <int64[2, 1] i = {{1, 2}}> {{
            {zeros}
            zt = Transpose <perm = [1, 0, 2]> (z)
            y = ScatterND (zt, i, u)
        }}"""
    )
    assert_same_function(model)
    assert not counts(model).keys() & {"ScatterND", "ConstantOfShape", "Expand"}
    assert counts(model)["Pad"] == 1


@pytest.mark.parametrize(
    ("start", "nodes"),
    [
        (0, {"Slice": 1, "Pad": 1}),
        (1, {"Slice": 2, "Pad": 1, "Concat": 1}),
        (2, {"Slice": 1, "Pad": 1}),
    ],
)
def test_written_zeros_are_a_pad(start: int, nodes: dict[str, int]) -> None:
    model = from_text(
        f"""g (float[4, N] x) => (float[4, N] y)
        <int64[2, 1] i = {{{start}, {start + 1}}}, int64[2] two = {{2, 2}},
        int64[1] first = {{0}}, int64[1] second = {{1}}, int64[1] end = {{2}}> {{
            s = Shape (x)
            n = Slice (s, second, end, first)
            rows = Slice (two, first, second)
            t = Concat <axis = 0> (rows, n)
            z = ConstantOfShape (t)
            y = ScatterND (x, i, z)
        }}"""
    )
    assert_same_function(model)
    assert counts(model) == nodes


def test_negative_zeros_are_no_padding() -> None:
    model = from_text(
        """g (float[2, 5] u) => (float[4, 5] y)
        <int64[2, 1] i = {1, 2}, int64[2] n = {4, 5}> {
            z = ConstantOfShape <value = float[1] {-0.0}> (n)
            y = ScatterND (z, i, u)
        }"""
    )
    before = run(model, {"u": np.ones((2, 5), np.float32)})[0]
    canonicalize(model)
    after = run(model, {"u": np.ones((2, 5), np.float32)})[0]
    assert counts(model) == {"Concat": 1}
    assert np.signbit(before).sum() == 10
    np.testing.assert_array_equal(np.signbit(after), np.signbit(before))


def test_a_dynamic_axis_written_whole() -> None:
    model = from_text(
        """g (float[N, 4] x, float[N, 4] u) => (float[N, 4] y)
        <int64 zero = {0}, int64 one = {1}, int64[1] last = {-1}> {
            n = Shape (x)
            size = Gather (n, zero)
            all = Range (zero, size, one)
            i = Unsqueeze (all, last)
            r = Relu (u)
            y = ScatterND (x, i, r)
        }"""
    )
    assert_same_function(model)
    assert counts(model) == {"Relu": 1}


def test_dynamic_axes_of_different_names_are_not_equal() -> None:
    """Rows 0 to M of N are written, and M may be less than N."""
    model = from_text(
        """g (float[N, 4] x, float[M, 4] u) => (float[N, 4] y)
        <int64 zero = {0}, int64 one = {1}, int64[1] last = {-1}> {
            m = Shape (u)
            size = Gather (m, zero)
            all = Range (zero, size, one)
            i = Unsqueeze (all, last)
            y = ScatterND (x, i, u)
        }"""
    )
    canonicalize(model)
    assert counts(model)["ScatterND"] == 1
    x, u = np.zeros((3, 4), np.float32), np.ones((2, 4), np.float32)
    assert run(model, {"x": x, "u": u})[0].sum() == 8


def test_negative_zeros_of_a_dynamic_shape_are_no_padding() -> None:
    model = from_text(
        """g (float[4, N] x, float[2, N] u) => (float[4, N] y) <int64[2, 1] i = {0, 1}> {
            n = Shape (x)
            z = ConstantOfShape <value = float[1] {-0.0}> (n)
            y = ScatterND (z, i, u)
        }"""
    )
    canonicalize(model)
    feeds = {"x": np.ones((4, 3), np.float32), "u": np.ones((2, 3), np.float32)}
    assert counts(model)["Pad"] == 0
    assert np.signbit(run(model, feeds)[0]).sum() == 6


@pytest.mark.parametrize(
    ("indices", "updates", "call"),
    [
        (box((0, 2), (0, 2))[:, ::-1], "float[2, 2, 5] u", "ScatterND (x, i, u)"),
        (box((0, 2), (0, 4))[:, ::2], "float[2, 2, 5] u", "ScatterND (x, i, u)"),
        (box((0, 2), (1, 2)).repeat(2, 1), "float[2, 2, 5] u", "ScatterND (x, i, u)"),
        (box((0, 2), (-1, 1)), "float[2, 2, 5] u", "ScatterND (x, i, u)"),
        (box((0, 2), (0, 2)), "float[2, 2, 5] u", 'ScatterND <reduction = "add"> (x, i, u)'),
        (box((0, 2), (0, 2)).reshape(4, 2), "float[4, 5] u", "ScatterND (x, i, u)"),
        (
            np.zeros((2, 1, 5), np.int64),
            "float[2, 1, 5] u",
            'ScatterElements <reduction = "max"> (x, i, u)',
        ),
        (np.indices((2, 3, 5))[1] % 2, "float[2, 3, 5] u", "ScatterElements <axis = 1> (x, i, u)"),
    ],
    ids=["backwards", "strided", "repeated", "wrapped", "added", "flat", "largest", "cyclic"],
)
def test_writes_of_no_box_are_left_alone(
    indices: NDArray[np.int64], updates: str, call: str
) -> None:
    model = scatter(indices, updates=updates, call=call)
    (node,) = model.graph
    canonicalize(model)
    assert list(model.graph) == [node]


def test_overridable_indices_are_not_constant() -> None:
    model = from_text(
        """g (float[3] x, float[1] u, int64[1, 1] i = {0}) => (float[3] y) {
            y = ScatterND (x, i, u)
        }"""
    )
    assert_same_function(model)
    assert counts(model) == {"ScatterND": 1}
    feeds = {"x": np.zeros(3, np.float32), "u": np.ones(1, np.float32)}
    assert run(model, {**feeds, "i": np.array([[2]])})[0].tolist() == [0, 0, 1]


def test_older_operators_are_replaced_as_well() -> None:
    model = from_text(
        """<ir_version: 7, opset_import: ["" : 11]>
        g (float[3] x, float[1] u) => (float[3] y) <int64[1, 1] i = {0}> {
            y = ScatterND (x, i, u)
        }"""
    )
    assert_same_function(model)
    assert counts(model) == {"Slice": 1, "Concat": 1}
