"""The tables of docs/engines.md are what TensorRT for RTX builds."""

from __future__ import annotations

import pytest

from bench.engine_layers import MODELS, before_and_after, by_precision, line
from flatfold.backends import load_backend
from tests.docs.markdown import read

pytestmark = pytest.mark.parametrize(
    "name", [MODELS[0], *(pytest.param(name, marks=pytest.mark.slow) for name in MODELS[1:])]
)


def require_builder() -> None:
    state = load_backend("trt-rtx").availability()
    if not state.available:
        pytest.skip(state.reason)


def test_layers_before_and_after(name):
    require_builder()
    assert line(before_and_after(name)) in read("docs/engines.md").splitlines()


def test_layers_by_precision(name):
    require_builder()
    listed = read("docs/engines.md").splitlines()
    for cells in by_precision(name):
        assert line(cells) in listed
