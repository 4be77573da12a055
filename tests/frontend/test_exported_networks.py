"""RepVGG from PyTorch's two exporters, canonicalized."""

from __future__ import annotations

import io
import warnings

import onnx
import onnx_ir as ir
import pytest
import torch
from torch import nn

from flatfold.frontend import canonicalize
from flatfold.models.repvgg import repvgg
from tests.frontend.assertions import assert_invariants, assert_same_function
from tests.frontend.execution import counts


def legacy_export(module: nn.Module, *, folding: bool, dynamic: bool) -> ir.Model:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            (torch.ones(1, 3, 64, 64),),
            buffer,
            dynamo=False,
            do_constant_folding=folding,
            input_names=["x"],
            output_names=["y"],
            dynamic_axes={"x": {0: "batch"}, "y": {0: "batch"}} if dynamic else None,
            opset_version=17,
        )
    return ir.serde.deserialize_model(onnx.load_from_string(buffer.getvalue()))


def test_new_exporter(exported_a0: ir.Model) -> None:
    model = exported_a0.clone()
    assert counts(model)["CastLike"] == 44
    assert_same_function(model)
    assert_invariants(model)
    assert counts(model) == {
        "Conv": 44,
        "BatchNormalization": 61,
        "Add": 44,
        "Relu": 22,
        "ReduceMean": 1,
        "Reshape": 1,
        "Gemm": 1,
    }
    # the exporter gave every bias-free convolution a bias of zeros
    assert all(len(node.inputs) == 2 for node in model.graph if node.op_type == "Conv")


@pytest.mark.parametrize("dynamic", [False, True])
def test_legacy_exporter(a0: nn.Module, dynamic: bool) -> None:
    model = legacy_export(a0, folding=False, dynamic=dynamic)
    assert_same_function(model)
    assert_invariants(model)
    operators = counts(model)
    assert operators["Conv"] == 44 and operators["BatchNormalization"] == 61
    assert operators["Add"] == 39 and operators["Relu"] == 22


def test_legacy_exporter_with_its_own_folding(a0: nn.Module) -> None:
    model = legacy_export(a0, folding=True, dynamic=False)
    assert_same_function(model)
    assert_invariants(model)
    assert (counts(model)["Conv"], counts(model)["BatchNormalization"]) == (44, 17)


def test_shared_initializers_behind_identities() -> None:
    """A network with default statistics: the exporter stores one vector of ones for all BNs."""
    fresh = repvgg(depths=(1, 2, 1, 1), widths=(8, 8, 8, 8), num_classes=10).eval()
    model = legacy_export(fresh, folding=False, dynamic=False)
    assert counts(model)["Identity"] > 20
    assert_same_function(model)
    assert_invariants(model)


def test_weights_are_shared_not_copied(exported_a0: ir.Model) -> None:
    model = exported_a0.clone()
    before = {name: value.const_value for name, value in model.graph.initializers.items()}
    canonicalize(model)
    kept = [name for name in before if name in model.graph.initializers]
    assert len(kept) == 44 + 61 * 4 + 2
    assert all(model.graph.initializers[name].const_value is before[name] for name in kept)


def test_provenance_survives(exported_a0: ir.Model) -> None:
    model = exported_a0.clone()
    canonicalize(model)
    scopes = {n.metadata_props["flatfold.scope"] for n in model.graph if n.op_type == "Conv"}
    assert len(scopes) == 44
