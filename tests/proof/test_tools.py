"""Results of other tools, of a right and of a wrong network, compared part by part."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import onnx_ir as ir
import pytest

import flatfold
from tests.nets import rewrite
from tests.proof.planted import BLOCKS, drawn_net, training_form


def by_flatfold(model: onnx.ModelProto, _: Path) -> onnx.ModelProto:
    return rewrite(model).after


def by_onnxsim(model: onnx.ModelProto, _: Path) -> onnx.ModelProto:
    import onnxsim

    return onnxsim.simplify(model)[0]


def by_onnxslim(model: onnx.ModelProto, _: Path) -> onnx.ModelProto:
    return pytest.importorskip("onnxslim").slim(model)


def by_onnxscript(model: onnx.ModelProto, _: Path) -> onnx.ModelProto:
    from onnxscript import optimizer, rewriter

    graph = ir.from_proto(model)
    optimizer.optimize(graph)
    return ir.to_proto(rewriter.rewrite(graph))


def by_onnx_runtime(model: onnx.ModelProto, folder: Path) -> onnx.ModelProto:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    options.log_severity_level = 4
    providers = ["CPUExecutionProvider"]
    ort.InferenceSession(model.SerializeToString(), options, providers=providers)
    return onnx.load(folder / "optimised.onnx")


TOOLS = [by_flatfold, by_onnxsim, by_onnxslim, by_onnxscript, by_onnx_runtime]
Tool = Callable[[onnx.ModelProto, Path], onnx.ModelProto]


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.__name__)
def test_what_a_tool_folds_rightly_is_bounded(tool: Tool, tmp_path: Path) -> None:
    model = training_form(drawn_net(0))
    done = tool(model, tmp_path)
    assert len(done.graph.node) < len(model.graph.node)
    found = flatfold.verify(model, done)
    assert found.verdict == "bounded", found
    assert found.regions >= BLOCKS
    assert found.region_ratio <= (1.01 if tool is by_flatfold else 4)
    assert ("rounded up to" in found.reason) == (found.region_ratio > 1.01)


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.__name__)
def test_what_a_tool_folds_wrongly_is_named(tool: Tool, tmp_path: Path) -> None:
    """The same fault, as if the tool had misread one variance."""
    blocks = drawn_net(0)
    wrong = list(blocks)
    wrong[5] = blocks[5].with_norm(0, blocks[5].norms[0].changed("variance", 3, 4))
    found = flatfold.verify(training_form(blocks), tool(training_form(wrong), tmp_path))
    assert found.verdict == "refuted"
    assert "b5." in found.reason
    assert all(name.startswith("b5.") for name in found.faults[0].nodes)
    assert found.faults[0].channel == 3
