"""Names in a model cannot act on the terminal, whichever message or table shows them."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from flatfold.__main__ import run
from flatfold.errors import InputError
from tests.cli.running import below, flatfold

EVIL = "\x1b[2J\x9b31m\x7f\r\n\b\x07\u202e\u2066\u2028\u200b error[INPUT]: all is lost"
UNSAFE = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def hostile(valid: bool = True) -> bytes:
    """A block whose every name is hostile; the author's and the opset's too."""
    w3, w1 = np.ones((4, 4, 3, 3), np.float32), np.ones((4, 4, 1, 1), np.float32)
    x, y, a, b, c = (f"{EVIL} {name}" for name in "xyabc")
    image = [1, 4, 9, 9]
    nodes = [
        helper.make_node("Conv", [x, f"{EVIL} 3"], [a], name=f"n{a}", pads=[1, 1, 1, 1]),
        helper.make_node("Conv", [x, f"{EVIL} 1"], [b], name=f"n{b}"),
        helper.make_node("Add", [a, b], [c], name=f"n{c}"),
        helper.make_node("Relu" if valid else f"{EVIL} op", [c], [y], name=f"n{y}"),
    ]
    graph = helper.make_graph(
        nodes,
        f"g{EVIL}",
        [helper.make_tensor_value_info(x, TensorProto.FLOAT, image)],
        [helper.make_tensor_value_info(y, TensorProto.FLOAT, image)],
        [numpy_helper.from_array(w3, f"{EVIL} 3"), numpy_helper.from_array(w1, f"{EVIL} 1")],
        doc_string=EVIL,
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid(f"{EVIL} d", 1)]
    proto = helper.make_model(graph, producer_name=EVIL, opset_imports=opsets, ir_version=10)
    content: bytes = proto.SerializeToString()
    return content


def assert_harmless(shown: str) -> None:
    acting = {c for c in shown if unicodedata.category(c) in UNSAFE and c != "\n"}
    assert not acting, [hex(ord(char)) for char in acting]
    assert not [line for line in shown.splitlines() if line.strip().startswith("error[INPUT]: all")]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


FILE = f"m{EVIL.replace('/', '')}.onnx"

WAYS = {
    "explain": ["explain", FILE],
    "explain in full": ["explain", FILE, "--node", "*"],
    "explain as JSON": ["explain", FILE, "--json"],
    "explain what is not there": ["explain", FILE, "--node", "nothing"],
    "explain a rule that is not there": ["explain", FILE, "--rule", EVIL],
    "inspect": ["inspect", FILE],
    "inspect as JSON": ["inspect", FILE, "--json"],
    "verify": ["verify", FILE, FILE],
    "verify as JSON": ["verify", FILE, FILE, "--json"],
    "verify against another": ["verify", FILE, "other.onnx"],
    "compile": ["compile", FILE, "--no-time"],
    "compile and measure": ["compile", FILE, "-o", f"out{EVIL}"],
    "compile as JSON": ["compile", FILE, "--no-time", "--json"],
    "compile with a size": ["compile", FILE, "--size", "5"],
    "compile what is not valid": ["compile", "invalid.onnx"],
    "compile with a traceback": ["compile", "invalid.onnx", "--debug"],
    "compile what is not there": ["compile", f"no{FILE}"],
    "inspect what is not valid": ["inspect", "invalid.onnx", "--debug"],
}


@pytest.mark.parametrize("way", WAYS)
def test_no_name_acts_on_the_terminal(
    way: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(FILE).write_bytes(hostile())
    Path("invalid.onnx").write_bytes(hostile(valid=False))
    other = onnx.load_model_from_string(hostile())
    other.graph.output[0].name = other.graph.node[3].output[0] = "z"
    Path("other.onnx").write_bytes(other.SerializeToString())
    code = run(WAYS[way])
    shown = capsys.readouterr()
    assert_harmless(shown.out)
    assert_harmless(shown.err)
    assert code in (0, 2, 3)
    if code == 0 and "--json" in WAYS[way]:
        assert json.loads(shown.out)["verb"] == way.split()[0]
    if code == 0 and "verify" not in way:
        assert "all is lost" in shown.out  # it is shown, and harmless
    if code:
        assert shown.out == "" and "error[" in shown.err


def test_a_bundle_with_hostile_names(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path(FILE).write_bytes(hostile())
    assert run(["compile", FILE, "--no-time", "-o", "net"]) == 0
    capsys.readouterr()
    for args in (["inspect", "net"], ["inspect", "net", "--json"], ["verify", "net", FILE]):
        assert run(args) == 0
        shown = capsys.readouterr()
        assert_harmless(shown.out + shown.err)


def test_what_libraries_log_about_hostile_names(here: Path) -> None:
    """In a process of its own, where their messages go to stderr."""
    Path("invalid.onnx").write_bytes(hostile(valid=False))
    for args in (["explain", "invalid.onnx"], ["compile", "invalid.onnx", "--no-time"]):
        done = flatfold(*args, cwd=here)
        assert_harmless(done.stdout + done.stderr)
        assert done.returncode in (0, 3)
    assert below(here) == ["invalid.onnx"]


def test_an_error_shown_by_python_itself() -> None:
    error = InputError(f"bad {EVIL}\n" * 50, where=EVIL, hint=EVIL * 1000)
    assert_harmless(str(error))
    assert len(str(error).splitlines()) == 3 and len(str(error)) < 7000
