"""What other tools give back is a model, or the row says why there is none."""

from __future__ import annotations

import onnx
import onnx_ir as ir
import pytest
from onnx import helper

from flatfold.comparing import rivals
from flatfold.errors import InputError


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
