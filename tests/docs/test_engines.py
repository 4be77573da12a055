"""The table of docs/engines.md is what TensorRT for RTX builds."""

from __future__ import annotations

import pytest

from bench.engine_layers import MODELS, rows
from flatfold.backends import load_backend
from tests.docs.markdown import read


@pytest.mark.parametrize(
    "name", [MODELS[0], *(pytest.param(name, marks=pytest.mark.slow) for name in MODELS[1:])]
)
def test_layers_before_and_after(name):
    state = load_backend("trt-rtx").availability()
    if not state.available:
        pytest.skip(state.reason)
    assert rows(name) in read("docs/engines.md").splitlines()
