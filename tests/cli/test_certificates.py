"""The certificate of a saved engine, checked by anyone with the engine and the original."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

import flatfold
from flatfold.__main__ import run
from tests.cli.running import PLAIN, write_onnx


@pytest.fixture(autouse=True)
def compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """m.onnx and its engine, `e`."""
    monkeypatch.chdir(tmp_path)
    write_onnx(Path("m.onnx"))
    assert run(["compile", "m.onnx", "--no-time", "-o", "e"]) == 0


def checked(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    capsys.readouterr()
    code = run(["verify", *args, "--certificate", "--json"])
    out, err = capsys.readouterr()
    return code, json.loads(out)["reason"] if out else "", err


def test_a_certificate_holds(capsys):
    code, reason, _ = checked(capsys, "m.onnx", "e")
    assert code == 0
    assert "1 changes, 1 exact by their algebra" in reason
    content = json.loads(Path("e/certificate.json").read_text())
    assert content["kind"] == "flatfold-certificate"
    assert content["changes"][0]["rewrite"] == "merge-branches"


def test_of_another_original(capsys):
    model = onnx.load("m.onnx")
    weight = onnx.numpy_helper.to_array(model.graph.initializer[0]) * np.float32(2)
    name = model.graph.initializer[0].name
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(weight, name))
    onnx.save(model, "other.onnx")
    code, _, error = checked(capsys, "other.onnx", "e")
    assert code == 3
    assert "about another original graph" in error


def test_of_another_engine(capsys):
    """Two engines that are whole, with each other's certificates."""
    engine = flatfold.load("e")
    engine.certificate["rewritten"] = "0" * 64
    engine.save("f")
    code, _, error = checked(capsys, "m.onnx", "f")
    assert code == 3
    assert "about another rewritten graph" in error


def test_a_file_that_was_changed(capsys):
    path = Path("e/certificate.json")
    path.write_text(path.read_text().replace("merge-branches", "merge-branchez"))
    code, _, error = checked(capsys, "m.onnx", "e")
    assert code == 3
    assert "SHA-256" in error
    with pytest.raises(flatfold.errors.InputError, match="SHA-256"):
        flatfold.load("e")


def test_an_engine_without_one(capsys):
    assert run(["compile", "m.onnx", "--no-time", "--verify", "off", "-o", "g"]) == 0
    code, _, error = checked(capsys, "m.onnx", "g")
    assert code == 3
    assert "found one without" in error
    write_onnx(Path("p.onnx"), PLAIN)
    assert checked(capsys, "m.onnx", "p.onnx")[0] == 3


def test_it_is_kept_when_an_engine_is_saved_again(capsys):
    flatfold.load("e").save("f")
    assert Path("f/certificate.json").read_bytes() == Path("e/certificate.json").read_bytes()
    assert checked(capsys, "m.onnx", "f")[0] == 0


def test_a_zoo_model_by_its_name(capsys):
    size = ("--size", "32", "--batch", "2")
    assert run(["compile", "yolo_qarepvgg_tiny", *size, "--no-time", "-o", "z"]) == 0
    code, reason, _ = checked(capsys, "yolo_qarepvgg_tiny", "z", *size)
    assert code == 0
    assert "20 changes, 20 exact by their algebra" in reason


def test_of_two_that_are_the_same_but_not_its_own(capsys):
    """A graph is identical to itself, whatever a certificate says."""
    code, _, error = checked(capsys, "e", "e")
    assert code == 3
    assert "about another original graph" in error
