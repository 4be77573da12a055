"""What each verb does and prints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import flatfold as api
from flatfold.__main__ import run
from tests.cli.running import BLOCK, PLAIN, THREE_BLOCKS, TWINS, below, flatfold, write_onnx
from tests.nets import Net

Read = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FORCE_COLOR", raising=False)


# Target "auto" may choose another one each time.
COMPILE = ("compile", "--target", "ort-cpu")


def result(capsys: Read, *args: str, code: int = 0) -> dict[str, Any]:
    """The JSON that a verb prints, alone, on stdout."""
    assert run([*args, "--json"]) == code
    output = json.loads(capsys.readouterr().out)
    assert (output["schema"], output["verb"]) == (1, args[0])
    return dict(output)


def text(capsys: Read, *args: str) -> str:
    assert run(args) == 0
    return capsys.readouterr().out


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """RepVGG-A0, compiled by the real command, and what it printed."""
    folder = tmp_path_factory.mktemp("compiled")
    process = flatfold(*COMPILE, "repvgg_a0", "--size", "64", "--json", cwd=folder)
    assert process.returncode == 0, process.stderr
    assert "exporting" in process.stderr and "\x1b" not in process.stderr
    return folder, json.loads(process.stdout)


def test_repvgg_a0_becomes_a_plain_network(compiled: tuple[Path, dict[str, Any]]) -> None:
    folder, printed = compiled
    assert printed["folder"] == "build/repvgg_a0-ort-cpu-fp32"
    own = ["engine.onnx", "manifest.json", "model.onnx"]
    assert sorted(printed["files"]) == ["certificate.json", *own]
    manifest = json.loads((folder / printed["folder"] / "manifest.json").read_text())
    after = manifest["record"]["after"]
    assert after["parameters"] == printed["after"]["parameters"] == 8_309_384
    operators = after["operators"]
    assert (operators["Conv"], operators["Relu"], operators["Gemm"]) == (22, 22, 1)
    assert "BatchNormalization" not in operators and "Add" not in operators
    assert manifest["record"]["equivalence"]["verdict"] == "certified"


def test_the_engine_computes_what_the_module_does(compiled: tuple[Path, dict[str, Any]]) -> None:
    import torch

    folder, printed = compiled
    module = api.create_model("repvgg_a0").double()
    x = np.random.default_rng(7).standard_normal((1, 3, 64, 64)).astype(np.float32)
    with torch.no_grad():
        exact = module(torch.from_numpy(x).double()).numpy()
    with api.load(folder / printed["folder"]) as engine:
        error = np.max(np.abs(engine(x) - exact)) / np.max(np.abs(exact))
    assert error <= printed["equivalence"]["bound"]


def test_latency_is_printed_but_not_saved(compiled: tuple[Path, dict[str, Any]]) -> None:
    folder, printed = compiled
    latency = printed["latency"]
    for form in ("before", "after"):
        low, high = latency[form]["interval_s"]
        assert 0 < low <= latency[form]["median_s"] <= high
    low, high = latency["ratio"]["interval"]
    assert low <= latency["ratio"]["value"] <= high
    assert latency["inputs"] == {"x": [1, 3, 64, 64]}
    assert "median_s" not in (folder / printed["folder"] / "manifest.json").read_text()


def test_a_saved_engine_is_compared_with_its_model(tmp_path: Path, capsys: Read) -> None:
    (tmp_path / "three_blocks.py").write_text(THREE_BLOCKS)
    model, size = "three_blocks:net", ("--size", "2x8x7")
    output = result(capsys, *COMPILE, model, *size, "--no-time", "--dynamic-batch")
    assert output["folder"] == "build/net-ort-cpu-fp32"
    assert api.load(output["folder"]).inputs[0].shape[1:] == (2, 8, 7)
    proof = result(capsys, "verify", model, output["folder"], *size, "--dynamic-batch")
    assert proof["passed"] and proof["reference"] == "the module in float64"


def test_compile_twice_gives_the_same_bytes(tmp_path: Path, capsys: Read) -> None:
    write_onnx(tmp_path / "m.onnx")
    folders = [Path(result(capsys, *COMPILE, "m.onnx", "-o", name)["folder"]) for name in "ab"]
    one, two = ({f.name: f.read_bytes() for f in folder.iterdir()} for folder in folders)
    assert one == two


def test_summary_for_people(tmp_path: Path, capsys: Read) -> None:
    write_onnx(tmp_path / "m.onnx")
    shown = text(capsys, *COMPILE, "m.onnx", "--threads", "1")
    assert "m for ort-cpu, fp32" in shown
    rows = {line.split()[0]: line.split()[1:] for line in shown.splitlines() if line.strip()}
    assert rows["operators"][:2] == ["4", "2"]
    assert rows["Conv"][:2] == ["2", "1"]
    assert rows["parameters"][:2] == ["160", "144"]
    assert rows["proof"][0] == "certified:"
    assert rows["files"][0] == "build/m-ort-cpu-fp32/:"
    manifest = json.loads(Path("build/m-ort-cpu-fp32/manifest.json").read_text())
    assert manifest["engine"]["options"]["intra_threads"] == 1


def test_a_model_with_nothing_to_do(tmp_path: Path, capsys: Read) -> None:
    write_onnx(tmp_path / "plain.onnx", PLAIN)
    output = result(capsys, "compile", "plain.onnx", "--no-time")
    assert output["before"] == output["after"]
    assert output["remarks"] == [] and output["latency"] is None
    assert "nothing" in text(capsys, "explain", "plain.onnx")


def test_open_batch_is_timed_with_the_batch_asked_for(tmp_path: Path, capsys: Read) -> None:
    write_onnx(tmp_path / "m.onnx", batch="N")
    output = result(capsys, "compile", "m.onnx", "--batch", "3")
    assert output["latency"]["inputs"] == {"image": [3, 4, 9, 9]}
    engine = api.load(output["folder"])
    assert engine(np.zeros((5, 4, 9, 9), np.float32)).shape == (5, 4, 9, 9)


def test_passes_can_be_left_out(tmp_path: Path, capsys: Read) -> None:
    write_onnx(tmp_path / "m.onnx")
    for options in (["--skip", "merge-branches"], ["--passes", "fold-batchnorm"]):
        output = result(capsys, "explain", "m.onnx", *options)
        assert output["after"]["operators"]["Conv"] == 2
    assert result(capsys, "explain", "m.onnx")["after"]["operators"]["Conv"] == 1


def test_explain_judges_for_its_target(tmp_path: Path, capsys: Read) -> None:
    net = Net((1, 64, 8, 8), dtype=np.float32)
    few = net.conv(net.x, 4, 64, (1, 1))
    onnx.save(net.model(net.conv(few, 64, 4, (1, 1))), tmp_path / "m.onnx")
    for target, left in (("ort-cpu", 2), ("trt", 1)):
        output = result(capsys, "explain", "m.onnx", "--target", target)
        assert output["after"]["operators"]["Conv"] == left
    assert run(["explain", "m.onnx", "--target", "ort-gpu"]) == 2


def test_verify_tells_different_from_equal(tmp_path: Path, capsys: Read) -> None:
    write_onnx(tmp_path / "a.onnx")
    write_onnx(tmp_path / "b.onnx", BLOCK.replace("Add (wide, narrow)", "Sub (wide, narrow)"))
    write_onnx(tmp_path / "c.onnx", BLOCK.replace("Add (wide, narrow)", "Add (narrow, wide)"))
    output = result(capsys, "verify", "a.onnx", "b.onnx", code=4)
    assert (output["passed"], output["verdict"]) == (False, "refuted")
    assert output["faults"][0]["text"].startswith("Add and Sub differ by")
    assert result(capsys, "verify", "a.onnx", "c.onnx")["verdict"] == "bounded"
    sampled = result(capsys, "verify", "a.onnx", "c.onnx", "--verify", "sample")
    assert sampled["verdict"] == "sampled"
    assert text(capsys, "verify", "a.onnx", "a.onnx").startswith("identical")


def test_explain_tells_the_reason_of_what_was_left(tmp_path: Path, capsys: Read) -> None:
    write_onnx(tmp_path / "m.onnx", TWINS)
    shown = text(capsys, "explain", "m.onnx")
    applied, _, declined = shown.partition("left as it was")
    assert applied and "[OUTPUT]" in declined and "seen is an output of the graph" in declined
    assert "try: remove the output" in declined
    assert below(tmp_path) == ["m.onnx"]


def test_explain_collapses_what_repeats(tmp_path: Path, capsys: Read) -> None:
    (tmp_path / "three_blocks.py").write_text(THREE_BLOCKS)
    ask = ("explain", "three_blocks:net", "--size", "2x8x8")
    shown = text(capsys, *ask)
    assert "merge-branches x3: " in shown
    assert "at first, second, third" in shown and "nodes 12 -> 3" in shown
    for name in ("second", "second.norm", "sec*"):
        (remark,) = result(capsys, *ask, "--node", name)["remarks"]
        assert (remark["place"], remark["applied"]) == ("second", True)
        assert (remark["before"]["nodes"], remark["after"]["nodes"]) == (4, 1)


def test_explain_filters(tmp_path: Path, capsys: Read) -> None:
    write_onnx(tmp_path / "m.onnx", TWINS)
    everything = result(capsys, "explain", "m.onnx")["remarks"]
    by_code = result(capsys, "explain", "m.onnx", "--rule", "output")["remarks"]
    assert by_code == [r for r in everything if r["code"] == "OUTPUT"] != everything
    assert [remark["hint"][:17] for remark in by_code] == ["remove the output"]
    assert result(capsys, "explain", "m.onnx", "--rule", "overflow")["remarks"] == []
    for option, name, says in (("--node", "bath", "node or module"), ("--rule", "melt", "rule")):
        assert run(["explain", "m.onnx", option, name]) == 2
        assert f"unknown {says} '{name}'" in capsys.readouterr().err


def test_explain_tells_how_each_layer_computes(tmp_path: Path, capsys: Read) -> None:
    net = Net((1, 3, 8, 8), dtype=np.float32)
    y = net.bn(net.conv("x", 8, 3, (3, 3)), 8)
    gamma = net.constants[net.nodes[-1].input[1]]
    gamma *= np.ldexp(1, np.arange(-8, 8, 2)).astype(np.float32)
    y = net.op("Sigmoid", net.conv(net.op("Relu", y), 4, 8, (1, 1)))
    onnx.save(net.model(net.conv(y, 5, 4, (1, 1))), tmp_path / "m.onnx")
    np.save("x.npy", np.random.default_rng(0).standard_normal((4, 3, 8, 8)).astype(np.float32))
    ask = ("explain", "m.onnx", "--precision", "fp16", "--keep-float", "Sigmoid")
    ask = (*ask, "--calibration", "x.npy")
    output = result(capsys, *ask)
    first, second, kept, third = output["layers"]
    layers = output["rounded"]["layers"]
    assert (output["rounded"]["runs"], output["rounded"]["given"]) == (4, True)
    assert {each["precision"] for each in (first, second, third)} == {"fp16"}
    assert (kept["precision"], kept["why"]) == ("fp32", "ASKED: keep_float='Sigmoid'")
    assert layers == {each["node"]: each["decibels"] for each in (first, second, third)}
    assert all(60 < each["decibels"] < 80 for each in (first, second, third))  # 11 bits leave 72
    assert "8 channels divided by 2^" in first["scaled"] and not second["scaled"]
    shown = text(capsys, *ask)
    assert f"fp16 {first['place']}: {first['decibels']:.0f} dB predicted; " in shown
    assert "fp32 sigmoid4: ASKED: keep_float='Sigmoid'" in shown
    assert "dB in 4 runs on the data" in shown
    (only,) = result(capsys, *ask, "--node", "sigm*")["layers"]
    assert only == kept
    remarks = result(capsys, *ask, "--rule", "equalize-channels")["remarks"]
    assert [r["reason"] for r in remarks if r["applied"]] == [first["scaled"]]
    assert result(capsys, "explain", "m.onnx")["layers"] == []


def test_inspect_a_file(tmp_path: Path, capsys: Read) -> None:
    write_onnx(tmp_path / "m.onnx", batch="N")
    output = result(capsys, "inspect", "m.onnx")["model"]
    assert output["inputs"] == [{"name": "image", "dtype": "float32", "shape": ["N", 4, 9, 9]}]
    assert output["counts"]["operators"] == {"Conv": 2, "Add": 1, "Relu": 1}
    assert "Conv x2" in text(capsys, "inspect", "m.onnx")


def test_inspect_a_file_with_a_type_that_numpy_lacks(tmp_path: Path, capsys: Read) -> None:
    write_onnx(tmp_path / "m.onnx")
    model = onnx.load(tmp_path / "m.onnx")
    model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.UNDEFINED
    onnx.save(model, tmp_path / "m.onnx")
    assert result(capsys, "inspect", "m.onnx")["model"]["outputs"][0]["dtype"] == "undefined"


def test_inspect_a_bundle(tmp_path: Path, capsys: Read) -> None:
    write_onnx(tmp_path / "m.onnx")
    folder = result(capsys, *COMPILE, "m.onnx", "--no-time")["folder"]
    output = result(capsys, "inspect", folder)["manifest"]
    assert output == json.loads((Path(folder) / "manifest.json").read_text())
    shown = text(capsys, "inspect", folder)
    assert "ort-cpu, fp32" in shown and "certified: worst error" in shown
    (Path(folder) / "manifest.json").write_text("{}")
    assert run(["inspect", folder]) == 3


def test_names_of_a_model_are_shown_harmlessly(tmp_path: Path, capsys: Read) -> None:
    model = ir.load(write_onnx(tmp_path / "m.onnx", TWINS))
    model.graph.inputs[0].name = "\x1b[31m[red]image[/red]"
    ir.save(model, tmp_path / "evil.onnx")
    shown = text(capsys, "inspect", "evil.onnx") + text(capsys, "explain", "evil.onnx")
    assert "\x1b" not in shown and "\\x1b[31m[red]image[/red]" in shown
