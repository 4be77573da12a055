from __future__ import annotations

import onnx_ir as ir
import pytest
from torch import nn

from flatfold.frontend.pytorch.export import export_module
from flatfold.models import create_model


@pytest.fixture(scope="session")
def a0() -> nn.Module:
    return create_model("repvgg_a0")


@pytest.fixture(scope="session")
def exported_a0(a0: nn.Module) -> ir.Model:
    """RepVGG-A0 with a dynamic batch at 64 x 64; clone it before changing it."""
    return export_module(a0, input_shape=(3, 64, 64), dynamic_batch=True)
