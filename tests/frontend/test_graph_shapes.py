"""Shapes follow from inputs and weights; what a file declares of computed values is dropped."""

from __future__ import annotations

import itertools

import numpy as np
import onnx_ir as ir
import pytest

from flatfold.frontend import canonicalize
from tests.frontend.assertions import assert_same_function
from tests.frontend.execution import counts, from_text, random_feeds, run


def shape_of(model: ir.Model, name: str) -> list[int | str | None] | None:
    (value,) = [v for node in model.graph for v in node.outputs if v.name == name]
    if value.shape is None:
        return None
    return [size if isinstance(size, int) else size.value for size in value.shape]


def test_a_false_shape_of_a_computed_value_is_replaced() -> None:
    model = from_text("g (float[1, 4, 9, 9] x) => (float[N] y) { r = Relu (x) y = Flatten (r) }")
    model.graph[0].outputs[0].shape = ir.Shape([1, 4, 8])
    model.graph.outputs[0].shape = ir.Shape([1, "n"])
    canonicalize(model)
    assert shape_of(model, "r") == [1, 4, 9, 9]


def test_a_false_rank_of_an_output_is_replaced_and_rewrites_nothing() -> None:
    model = from_text(
        """g (float[1, 4, L] x) => (float[1, n] y) <int64[1] last = {2}, int64[2] rest = {4, -1}> {
            s = Shape (x) l = Gather (s, last) t = Concat <axis = 0> (l, rest) y = Reshape (x, t)
        }"""
    )
    feeds = {"x": np.arange(36, dtype=np.float32).reshape(1, 4, 9)}
    canonicalize(model)
    assert run(model, feeds)[0].shape == (9, 4, 1)


@pytest.mark.parametrize("pool", ["strides = [2, 2], pads = [1, 1, 1, 1]", "strides = [3, 3]"])
def test_a_window_that_begins_behind_the_map_is_not_counted(pool: str) -> None:
    model = from_text(
        f"""g (float[1, 2, 9, 9] x) => (float[n] y) <int64[1] flat = {{-1}}> {{
            p = MaxPool <kernel_shape = [2, 2], ceil_mode = 1, {pool}> (x)
            s = Shape (p) y = ConstantOfShape (s)
        }}"""
    )
    model.graph.outputs[0].shape = None
    feeds = random_feeds(model)
    before = run(model, feeds)[0].shape
    canonicalize(model)
    assert run(model, feeds)[0].shape == before
    assert counts(model).keys() <= {"ConstantOfShape", "Identity"}


def test_a_sequence_switches_nothing_off() -> None:
    model = from_text(
        """g (float[2, 4] x, int64 i) => (float[2, 2] y) <int64[2] parts = {2, 2}, float a = {2}> {
            b = Mul (a, a) z = Mul (x, b)
            s = SplitToSequence <axis = 1> (z, parts) y = SequenceAt (s, i)
        }"""
    )
    canonicalize(model)
    assert counts(model) == {"Mul": 1, "SplitToSequence": 1, "SequenceAt": 1}
    assert shape_of(model, "z") == [2, 4]


def test_behind_an_unknown_operator_the_weights_tell_rank_and_channels() -> None:
    model = from_text(
        """<ir_version: 10, opset_import: ["" : 20, "custom" : 1]>
        g (float[2, 2, 5, 5] x) => (float[n, m, h, w] y)
        <float[3, 2, 1, 1] k = {1, 2, 3, 4, 5, 6}> {
            c = custom.Unknown (x) z = Conv (c, k) y = Relu (z)
        }"""
    )
    canonicalize(model)
    sizes = shape_of(model, "z")
    assert sizes is not None
    assert (len(sizes), sizes[1]) == (4, 3)


def test_open_sizes_of_equal_windows_have_one_name() -> None:
    model = from_text(
        """g (float[n, 1, h, w] x) => (float[n, 1, a, b] y) {
            p = MaxPool <kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]> (x)
            q = MaxPool <kernel_shape = [1, 1], strides = [2, 2]> (x)
            y = Add (p, q)
        }"""
    )
    canonicalize(model)
    assert shape_of(model, "p") == shape_of(model, "q") == ["n", 1, "(h+1)//2", "(w+1)//2"]


@pytest.mark.parametrize("opset", [8, 11, 13, 17])
def test_axes_as_attributes_and_as_inputs_lead_to_one_form(opset: int) -> None:
    unsqueeze = "Unsqueeze <axes = [0]> (d)" if opset < 13 else "Unsqueeze (d, zero)"
    model = from_text(
        f"""<ir_version: 7, opset_import: ["" : {opset}]>
        g (float[2, 3, 4] x) => (float[n, m] y)
        <int64[1] zero = {{0}}, int64 one = {{1}}, int64[1] last = {{-1}}> {{
            s = Shape (x) d = Gather (s, one) u = {unsqueeze}
            t = Concat <axis = 0> (u, last) y = Reshape (x, t)
        }}"""
    )
    assert_same_function(model)
    assert counts(model) == {"Reshape": 1}


def test_constants_that_would_be_large_are_not_computed() -> None:
    doubled = " ".join(f"c{i + 1} = Concat <axis = 0> (c{i}, c{i})" for i in range(40))
    model = from_text(
        f"""g (float[2] x) => (float[n] y) <float[2] c0 = {{1, 2}}, int64 a = {{0}},
            int64 b = {{3000000000}}, int64 step = {{1}}> {{
            {doubled} m = ReduceMax <keepdims = 0> (c40)
            r = Range (a, b, step) f = Cast <to = 1> (r) k = ReduceMax <keepdims = 0> (f)
            z = Add (x, m) y = Add (z, k)
        }}"""
    )
    canonicalize(model)
    sizes = [v.const_value.size for v in model.graph.initializers.values() if v.const_value]
    assert max(sizes) <= 2**18
    assert counts(model)["Range"] == 1


def test_calls_that_grow_with_a_power_of_their_depth_stay_calls() -> None:
    functions = " ".join(
        f"""<domain: "local", opset_import: ["" : 20, "local" : 1]> F{i} (a) => (b) {{
            c = {call} (a) b = {call} (c) }}"""
        for i, call in enumerate(["Relu", *(f"local.F{i}" for i in range(20))])
    )
    model = from_text(
        f"""<ir_version: 10, opset_import: ["" : 20, "local" : 1]>
        g (float[2] x) => (float[2] y) {{ y = local.F20 (x) }} {functions}"""
    )
    canonicalize(model)
    assert counts(model) == {"F20": 1}


def test_many_nodes_with_one_name_are_named_in_linear_time() -> None:
    values = [f"v{i}" for i in range(3000)]
    chain = " ".join(f"{b} = Relu ({a})" for a, b in itertools.pairwise(["x", *values, "y"]))
    model = from_text(f"g (float[2] x) => (float[2] y) {{ {chain} }}")
    for node in model.graph:
        node.name = "Relu"
    canonicalize(model)
    assert len({node.name for node in model.graph}) == 3001


LOOP = """g (float[2, 3] x) => (float[a, b] y) <int64 n = {{2}}> {{
    y = Loop <body = body (int64 i, bool c, float[2, 3] state) => (bool d, float[p, q] next) {{
        d = Identity (c)
        r = Relu (state)
        s = Shape (r)
        t = ConstantOfShape (s)
        {step}
    }}> (n, , x)
}}"""


@pytest.mark.parametrize(
    ("step", "shape"),
    [("next = Add (r, t)", [2, 3]), ("next = Concat <axis = 0> (r, t)", None)],
)
def test_a_size_in_a_loop_is_believed_if_every_step_keeps_it(
    step: str, shape: list[int] | None
) -> None:
    model = from_text(LOOP.format(step=step))
    feeds = random_feeds(model)
    before = run(model, feeds)
    canonicalize(model)
    _, body = model.graphs()
    (relu,) = (node for node in body if node.op_type == "Relu")
    known = relu.outputs[0].shape
    assert (None if known is None else list(known)) == shape
    np.testing.assert_array_equal(run(model, feeds)[0], before[0])
