"""Graphs on which ONNX Runtime crashes end a child process only."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import flatfold
from flatfold.errors import InputError
from flatfold.system.trial import Trial


def model(text: str, **weights: np.ndarray) -> onnx.ModelProto:
    proto = onnx.parser.parse_model('<ir_version: 8, opset_import: ["" : 17]> g ' + text)
    proto.graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in weights.items())
    return proto


def crashing() -> onnx.ModelProto:
    """A window of 3 on a width of 1, and a Slice of that width, where ONNX asserts a range."""
    ends = {"s": np.array([0]), "e": np.array([9]), "a": np.array([3])}
    text = (
        "(float[1, 3, 8, 1] x) => (float[a, b, c, d] y) { k = Conv (x, w) y = Slice (k, s, e, a) }"
    )
    return model(text, w=np.zeros((3, 3, 3, 3), np.float32), **ends)


def test_a_crash_is_an_error_and_the_next_graph_is_tried() -> None:
    fine = model("(float[n, 2] x) => (float[n, 2] y) { y = Relu (x) }").SerializeToString()
    first = Trial(fine)
    assert first.refused == ""
    with pytest.raises(InputError, match=r"was ended by SIG\w+") as raised:
        Trial(crashing().SerializeToString())
    assert raised.value.exit_code == 3
    first.run({"x": [3, 2]})
    assert Trial(fine).refused == ""


def test_a_file_that_crashes_is_refused_and_without_a_proof_nothing_runs() -> None:
    with pytest.raises(InputError, match="in a process of its own"):
        flatfold.optimize(crashing())
    assert flatfold.optimize(crashing(), verify="off").equivalence.verdict == "unknown"


def test_sizes_that_crash_are_not_tried_here() -> None:
    """ONNX Runtime ends the process at a GRU of no steps: x[-1:1] has one where x has one."""
    rng = np.random.default_rng(0)
    text = """(float[n, 2, 3] x) => (float[a, b, c, d] y) {
        z = Slice (x, s, e) y = GRU <direction = "bidirectional", hidden_size = 3> (z, w, r) }"""
    gates = {name: rng.standard_normal((2, 9, 3)).astype(np.float32) for name in ("w", "r")}
    proto = model(text, s=np.array([-1]), e=np.array([1]), **gates)
    assert flatfold.optimize(proto).equivalence.passed
    with pytest.raises(InputError, match=r"was ended by SIG\w+"):
        flatfold.optimize(proto, input_shape={"x": (4, 2, 3)})


def test_what_the_checker_refuses_is_asked_of_onnx_runtime() -> None:
    """ONNX withdrew GroupNormalization of opset 18, which has a scale for each group."""
    rng = np.random.default_rng(0)
    text = """(float[1, 4, 5, 5] x) => (float[1, 4, 5, 5] y)
    { c = Conv (x, w) n = BatchNormalization (c, s, s, s, s)
      y = GroupNormalization <num_groups = 2> (n, g, g) }"""
    weights = {"w": rng.standard_normal((4, 4, 1, 1)), "s": np.ones(4), "g": np.ones(2)}
    proto = model(text, **{name: a.astype(np.float32) for name, a in weights.items()})
    proto.opset_import[0].version = 18
    operators = flatfold.optimize(proto).after.operators
    assert operators == {"Conv": 1, "GroupNormalization": 1}
    proto.graph.node[2].op_type = "NoSuchNormalization"
    with pytest.raises(InputError, match="not a valid ONNX model"):
        flatfold.optimize(proto)


def test_a_weight_with_data_in_two_fields_is_refused() -> None:
    proto = model("(float[2] x) => (float[2] y) { y = Add (x, w) }", w=np.ones(2, np.float32))
    proto.graph.initializer[0].float_data.extend([1, 2])
    with pytest.raises(InputError, match="data in 2 fields: float_data, raw_data"):
        flatfold.optimize(proto)
