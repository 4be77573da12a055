"""What other tools give back is a model, or the row says why there is none."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx.parser
import onnx_ir as ir
import pytest

from flatfold.benchmark.candidates import candidates, tools
from flatfold.benchmark.measure.job import Job
from flatfold.errors import InputError
from flatfold.sources import resolve
from tests.cli.running import write_onnx


def text(nodes: str) -> str:
    header = '<ir_version: 10, opset_import: ["" : 18]>'
    return f"{header} net (float[1, 3] x) => (float[1, 3] z) {{ {nodes} }}"


WHOLE = text("y = Relu(x) z = Relu(y)")
TORN = onnx.parser.parse_model(text("y = Relu(x) [torn] z = Relu(lost)"))
UNUSABLE = "the model that {tool} returned cannot be used: not a valid ONNX model: .*'lost'.*torn"
EXPORTED = text("y = Relu(x) t = Identity(y) z = Relu(t)")


@pytest.mark.parametrize("tool", tools.TOOLS)
def test_each_tool_makes_a_model(tool: str) -> None:
    pytest.importorskip(tool)
    made = tools.rewritten_by(tool, ir.from_onnx_text(WHOLE))
    assert [node.op_type for node in made.graph][-1] == "Relu"


@pytest.mark.parametrize(
    ("tool", "function", "given", "told"),
    [
        ("onnxsim", "simplify", (TORN, True), UNUSABLE),
        ("onnxslim", "slim", TORN, UNUSABLE),
        ("onnxslim", "slim", None, "expected a model from onnxslim"),
        ("onnxscript", "optimizer.optimize", TORN, UNUSABLE),
    ],
)
def test_what_is_no_model_is_told(
    tool: str,
    function: str,
    given: object,
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A graph with an edge to nothing, as one tool made of a network of ours, or nothing at all."""
    pytest.importorskip(tool)
    monkeypatch.setattr(f"{tool}.{function}", lambda *_, **__: given)
    path = write_onnx(tmp_path / "net.onnx", WHOLE)
    with pytest.raises(InputError, match=told.format(tool=tool)):
        tools.build(path, tmp_path, {"tool": tool}, lambda _: None)
    assert not (tmp_path / "model.onnx").exists()


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

    monkeypatch.setattr(candidates, "rewritten_by", tool)
    source = resolve(write_onnx(tmp_path / "net.onnx", EXPORTED))
    maker = candidates.Candidates(source, Job("", "", 1), {"ort-cpu": {}}, tmp_path, lambda _: None)
    training, row, ours = [v.row for v in maker.all(["onnxslim"], "off")]
    assert (training.nodes, ours.variant) == (2, "flatfold")
    assert (row.variant, row.nodes, row.reason) == ("onnxslim", nodes, reason)
