"""What other tools give back is a model, or the row says why there is none."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx_ir as ir
import pytest
from onnx import helper

from flatfold.comparing import rivals, variants
from flatfold.errors import InputError
from flatfold.resolve import resolve


def chain(*nodes: tuple[str, str]) -> onnx.ModelProto:
    """Relus from the values named first to those named second, the last one the output."""
    made = [helper.make_node("Relu", [a], [b], name=f"to {b}") for a, b in nodes]
    ends = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 3])
        for name in ("x", nodes[-1][1])
    ]
    graph = helper.make_graph(made, "chain", ends[:1], ends[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


WHOLE = chain(("x", "y"), ("y", "z"))
TORN = chain(("x", "y"), ("lost", "z"))


@pytest.mark.parametrize("tool", rivals.RIVALS)
def test_each_tool_makes_a_model(tool: str) -> None:
    pytest.importorskip(tool)
    made = rivals.rewritten_by(tool, ir.from_proto(WHOLE))
    assert [node.op_type for node in made.graph][-1] == "Relu"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (TORN, r"what onnxslim makes cannot be used: not a valid ONNX model: .*'lost'.*to z"),
        (None, "onnxslim gives no model back"),
    ],
)
def test_what_is_no_model_is_told(
    given: onnx.ModelProto | None, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A graph with an edge to nothing, as one tool made of a network of ours, or nothing at all."""
    onnxslim = pytest.importorskip("onnxslim")
    monkeypatch.setattr(onnxslim, "slim", lambda proto: given)
    with pytest.raises(InputError, match=told):
        rivals.by_onnxslim(ir.from_proto(WHOLE))


@pytest.mark.parametrize(
    ("works_on", "nodes", "reason"),
    [("training", 2, ""), ("exported", 3, ""), ("neither", None, "no 1")],
)
def test_a_tool_that_fails_on_the_training_graph_gets_the_exported_one(
    works_on: str, nodes: int | None, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[str] = []

    def tool(name: str, model: ir.Model) -> ir.Model:
        tries.append(name)
        if ("training", "exported")[len(tries) - 1] != works_on:
            raise InputError(f"no {len(tries)}")
        return model

    monkeypatch.setattr(variants, "rewritten_by", tool)
    source = resolve(exported(tmp_path / "net.onnx"))
    kitchen = variants.Kitchen(source, {}, {"ort-cpu": {}}, tmp_path, lambda _: None)
    training, row, ours = [v.row for v in kitchen.variants(["onnxslim"], "off")]
    assert (training.nodes, ours.variant) == (2, "flatfold")
    assert (row.variant, row.nodes, row.reason) == ("onnxslim", nodes, reason)


def exported(path: Path) -> Path:
    """Two Relus and an Identity, which the training graph does without."""
    made = chain(("x", "y"), ("y", "t"), ("t", "z"))
    made.graph.node[1].op_type = "Identity"
    onnx.save(made, path)
    return path
