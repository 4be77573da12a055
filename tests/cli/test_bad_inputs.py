"""Files that cannot be used as a model: a short message, the right exit code, no files left."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path

import pytest

from flatfold.__main__ import run
from flatfold.cli.exit_codes import OK
from flatfold.errors import InputError, NotEquivalent
from tests.cli.bad_inputs import FILES, MODELS, good, raw, spoiled
from tests.cli.running import below, flatfold

LINES = 4
SECONDS = 10
REFUSED = InputError.exit_code
STAGE = r" +\d+\.\d s  [a-z]"

CASES = {**FILES, **{name: spoiled(spoil) for name, spoil in MODELS.items()}}

# Valid as a file, and only found to be nonsense when somebody runs it: these two verbs do not.
ONLY_READING = ("inspect", "explain")


def messages(err: str) -> list[str]:
    """stderr without the stages of the work that was begun."""
    return [line for line in err.splitlines() if not re.match(STAGE, line)]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "good.onnx").write_bytes(good().SerializeToString())
    return tmp_path


def test_there_are_enough_of_them() -> None:
    assert len(CASES) >= 60


def test_what_they_are_made_from_is_good(here: Path) -> None:
    for args in (["inspect"], ["explain"], ["verify", "good.onnx"], ["compile", "--no-time"]):
        assert run([*args, "good.onnx"]) == OK


@pytest.mark.parametrize("case", CASES)
def test_bad_input(case: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    CASES[case](here / "m.onnx")
    present = below(here)
    for args in (
        ["inspect", "m.onnx"],
        ["explain", "m.onnx"],
        ["compile", "m.onnx", "--no-time", "-o", "out/engine"],
        ["verify", "m.onnx", "good.onnx"],
        ["verify", "good.onnx", "m.onnx", "--json"],
    ):
        start = time.monotonic()
        code = run(args)
        assert time.monotonic() - start < SECONDS
        shown = capsys.readouterr()
        lines = messages(shown.err)
        assert len(lines) <= LINES and "Traceback" not in shown.err, shown.err
        if code == OK and args[0] in ONLY_READING:
            assert not lines and case in MODELS
        elif code == NotEquivalent.exit_code:  # it can be run, but not on what the good one takes
            assert args[1] == "good.onnx" and not lines
            assert "cannot be run" in json.loads(shown.out)["reason"]
        else:
            assert (code, shown.out) == (REFUSED, ""), (args, shown.err)
            assert lines[0].startswith("error[") and "INTERNAL" not in lines[0]
        assert below(here) == present


def test_a_file_that_may_not_be_read(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "m.onnx").touch(mode=0)
    if os.access(here / "m.onnx", os.R_OK):
        pytest.skip("this user may read everything")
    assert run(["compile", "m.onnx"]) == REFUSED
    assert "Permission denied" in capsys.readouterr().err


def test_a_name_that_is_too_long(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for verb in ("inspect", "explain", "compile"):
        assert run([verb, "x" * 5000 + ".onnx"]) == REFUSED
        assert len(capsys.readouterr().err) < 5000


@pytest.mark.parametrize(
    "case", ["half a model", "a pipe", "an input of huge size", "a constant of huge size"]
)
def test_bad_input_in_a_process_of_its_own(case: str, here: Path) -> None:
    """In its own process, so that what native code prints is seen."""
    CASES[case](here / "m.onnx")
    present = below(here)
    process = flatfold("compile", "m.onnx", "-o", "out/engine", cwd=here)
    assert (process.returncode, process.stdout) == (REFUSED, "")
    assert len(messages(process.stderr)) <= LINES and "Traceback" not in process.stderr, (
        process.stderr
    )
    assert below(here) == present


BUNDLES = {
    "not JSON": b"{",
    "JSON without end": b"[" * 100_000,
    "a list": b"[]",
    "another kind": b'{"kind": "other"}',
    "no text": b"\xff\xfe",
}


@pytest.mark.parametrize("case", BUNDLES)
def test_bad_bundle(case: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "net").mkdir()
    raw(BUNDLES[case])(here / "net" / "manifest.json")
    for args in (["inspect", "net"], ["verify", "net", "good.onnx"]):
        assert run(args) == REFUSED
        assert len(capsys.readouterr().err.splitlines()) <= LINES
