"""The pools of the reference against ONNX Runtime; the evaluator's own mix up their pads."""

from __future__ import annotations

from itertools import product

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx.reference import ReferenceEvaluator

from flatfold.proof import NoReference
from flatfold.proof.interpreter.convolution import pool_operators


def model(op: str, **attributes: str) -> onnx.ModelProto:
    written = ", ".join(f"{name} = {value}" for name, value in attributes.items())
    return onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["" : 20]> g (float[N, 3, H, W] x) => '
        f"(float[N, 3, P, Q] y) {{ y = {op} <{written}> (x) }}"
    )


@pytest.mark.parametrize("op", ["AveragePool", "MaxPool"])
def test_pools_are_those_of_onnx_runtime(op: str) -> None:
    x = np.random.default_rng(0).standard_normal((2, 3, 9, 8)).astype(np.float32)
    extras = ({}, {"count_include_pad": "1"}) if op == "AveragePool" else ({},)
    for kernel, strides, pads, dilations, extra in product(
        ("[2, 2]", "[3, 1]", "[3, 3]"),
        ("[1, 1]", "[2, 3]"),
        ("[0, 0, 0, 0]", "[1, 0, 1, 0]", "[0, 0, 1, 0]"),
        ("[1, 1]", "[2, 1]"),
        extras,
    ):
        proto = model(
            op, kernel_shape=kernel, strides=strides, pads=pads, dilations=dilations, **extra
        )
        ours = ReferenceEvaluator(proto, new_ops=pool_operators(NoReference)).run(None, {"x": x})[0]
        session = onnxruntime.InferenceSession(
            proto.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        theirs = session.run(None, {"x": x})[0]
        np.testing.assert_allclose(ours, theirs, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("op", ["AveragePool", "MaxPool"])
def test_a_window_over_the_edge_is_not_guessed_at(op: str) -> None:
    proto = model(op, kernel_shape="[2, 2]", strides="[2, 2]", ceil_mode="1")
    evaluator = ReferenceEvaluator(proto, new_ops=pool_operators(NoReference))
    assert evaluator.run(None, {"x": np.ones((1, 3, 8, 8))})[0].shape == (1, 3, 4, 4)
    with pytest.raises(NoReference):
        evaluator.run(None, {"x": np.ones((1, 3, 9, 8))})
