"""The smallest pair that differs in the same way; models that agree, or cannot be compared."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

import flatfold
from flatfold.__main__ import run
from flatfold.errors import BuildError, Inconclusive, OutputError
from tests.nets import Net
from tests.proof.planted import Block, deploy_form, drawn_net, training_form
from tests.proof.test_planted_faults import FAULTS, Fold


def pair(fold: Fold, at: int = 4, seed: int = 2) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    blocks = drawn_net(seed)
    folded = [fold(b) if index == at else b.fold() for index, b in enumerate(blocks)]
    return training_form(blocks), deploy_form(blocks, folded)


@pytest.mark.parametrize("fault", list(FAULTS)[::3])
def test_a_planted_fault_is_reduced_to_its_block(fault: str, tmp_path: Path) -> None:
    a, b = pair(FAULTS[fault])
    done = flatfold.reduce(a, b, tmp_path / "small")
    assert done.fault is not None
    assert {name.partition(".")[0] for name in done.fault.nodes} == {"b4"}
    small = [onnx.load(tmp_path / "small" / name) for name in ("a.onnx", "b.onnx")]
    assert [len(model.graph.node) for model in small] == [5, 1]
    assert np.prod(done.inputs[0]) < 12 * 8 * 8
    again = flatfold.verify(*small)
    assert again.verdict == "refuted"
    for weight in (again.faults[0].weight, done.fault.weight):
        assert weight is not None and weight["expected"] != weight["found"]


def test_terms_that_both_add_are_dropped(tmp_path: Path) -> None:
    nets = [Net((2, 4, 9, 8), dtype=np.float32) for _ in range(2)]
    for net in nets:
        bent = net.op("Tanh", net.x)
        y = net.conv(net.op("Relu", net.x), 4, 4, (3, 3))
        net.y = net.op("Relu", net.op("Add", y, bent))
    weight = nets[1].nodes[-3].input[1]
    nets[1].constants[weight] = nets[1].constants[weight].swapaxes(2, 3)
    done = flatfold.reduce(*(net.model(net.y) for net in nets), tmp_path / "small")
    assert done.fault is not None
    kinds = [
        [node.op_type for node in onnx.load(tmp_path / "small" / name).graph.node]
        for name in ("a.onnx", "b.onnx")
    ]
    assert kinds == [["Conv"], ["Conv"]]
    assert [shape[:2] for shape in done.inputs] == [(1, 4)]


def test_models_that_agree_leave_nothing_to_write(tmp_path: Path) -> None:
    done = flatfold.reduce(*pair(Block.fold), tmp_path / "small")
    assert not done
    assert done.text.startswith("the two agree: 8 regions within rounding")
    assert not (tmp_path / "small").exists()


def test_what_cannot_be_compared_is_inconclusive(tmp_path: Path) -> None:
    nets = [Net((1, 4, 9, 8), dtype=np.float32) for _ in range(2)]
    nets[0].op("Softmax", nets[0].x, axis=1)
    total = nets[1].op("ReduceSum", nets[1].op("Exp", "x"), nets[1].const(np.array([1])))
    nets[1].op("Div", nets[1].nodes[0].output[0], total)
    for net in nets:
        net.nodes[-1].output[0] = "y"
    models = [net.model("y") for net in nets]
    with pytest.raises(Inconclusive) as error:
        flatfold.reduce(*models, tmp_path / "small")
    assert error.value.exit_code == 7


def test_a_pair_that_cannot_run_says_so(tmp_path: Path) -> None:
    net = Net((1, 4, 9, 8), dtype=np.float32)
    right = net.model(net.op("Relu", net.x))
    broken = onnx.ModelProto.FromString(right.SerializeToString())
    broken.graph.node[0].op_type, broken.graph.node[0].domain = "Nothing", "of.nobody"
    broken.opset_import.append(onnx.helper.make_opsetid("of.nobody", 1))
    with pytest.raises(BuildError, match="ONNX Runtime refused"):
        flatfold.reduce(right, broken, tmp_path / "small")
    assert not (tmp_path / "small").exists()


def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"mine\.txt"):
        flatfold.reduce(*pair(FAULTS["bias dropped"]), tmp_path)


def test_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    a, b = pair(FAULTS["one weight zeroed"])
    onnx.save(a, "a.onnx")
    onnx.save(b, "b.onnx")
    onnx.save(pair(Block.fold)[1], "right.onnx")
    assert run(["reduce", "a.onnx", "b.onnx", "-o", "small", "--json"]) == 4
    found = json.loads(capsys.readouterr().out)
    assert found["differ"] and found["nodes"][1] == 6
    weight = found["fault"]["weight"]
    assert (weight["output"], weight["input"], weight["tap"]) == (3, 1, [2, 0])
    assert json.loads(Path("small/fault.json").read_text())["fault"] == found["fault"]
    assert run(["reduce", "a.onnx", "b.onnx", "-o", "small"]) == 4
    shown = capsys.readouterr().out
    assert "output channel 3, input channel 1, tap (2, 0): expected" in shown
    assert "written to small/" in shown
    assert run(["reduce", "a.onnx", "right.onnx", "-o", "none"]) == 0
    assert "nothing to reduce" in capsys.readouterr().out
    assert not Path("none").exists()
