"""Every way to fail: one clear message, the right exit code, no traceback, no files left."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import numpy as np
import pytest
from safetensors.numpy import save_file

from flatfold.__main__ import run
from flatfold.cli.console import interruptible
from flatfold.cli.exit_codes import exit_code_of
from flatfold.errors import BuildError, InputError, NotEquivalent
from tests.cli.running import COMMAND, below, environment, flatfold, write_onnx


class Failing(Protocol):
    def __call__(self, *args: str, code: int, says: tuple[str, ...]) -> str: ...


@pytest.fixture
def failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Failing:
    """A command must exit with `code`, print all of `says` on stderr, and write no file."""
    monkeypatch.chdir(tmp_path)

    def check(*args: str, code: int, says: tuple[str, ...]) -> str:
        present = below(tmp_path)
        assert run(args) == code
        shown = capsys.readouterr()
        assert shown.out == ""
        assert "Traceback" not in shown.err
        for text in says:
            assert text in shown.err
        assert below(tmp_path) == present
        return shown.err

    return check


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["compile", "repvgg_a9"], ("unknown model 'repvgg_a9'", "did you mean", "repvgg_a0")),
        (["explain", "repvgg_a9"], ("unknown model 'repvgg_a9'", "did you mean")),
        (["models", "repvgg_x*"], ("unknown model 'repvgg_x*'", "did you mean")),
        (["compile", "repvgg_a0", "-t", "ort-cpy"], ("unknown target 'ort-cpy'", "ort-cpu")),
        (["compile", "repvgg_a0", "--passes", "merge"], ("unknown pass 'merge'", "merge-branches")),
        (["compile", "repvgg_a0", "--skip", "nothing"], ("unknown pass 'nothing'", "fold-batch")),
        (["compile", "repvgg_a0", "--verify", "full"], ("unknown verification 'full'", "bound")),
        (["compile", "repvgg_a0", "--size", "3y"], ("error[USAGE]", "--size", "3y", "224")),
        (["compile", "repvgg_a0", "--size", "0"], ("error[USAGE]", "--size")),
        (["compile", "repvgg_a0", "--batch", "0"], ("error[USAGE]", "--batch")),
        (["compile", "a.b:c", "--batch", "2"], ("error[USAGE]", "--size")),
        (["compile"], ("error[USAGE]: Missing argument", "try: flatfold compile --help")),
        (["compile", "repvgg_a0", "--nope"], ("error[USAGE]", "--nope")),
        (["compil", "repvgg_a0"], ("error[USAGE]", "compil", "try: flatfold --help")),
        ([], ("error[USAGE]: Missing command",)),
    ],
)
def test_wrong_command_line(args: list[str], says: tuple[str, ...], failed: Failing) -> None:
    assert "try: " in failed(*args, code=2, says=says)


def test_input_that_is_no_model(tmp_path: Path, failed: Failing) -> None:
    (tmp_path / "text.onnx").write_text("this is no model")
    (tmp_path / "empty.onnx").touch()
    whole = write_onnx(tmp_path / "whole.onnx").read_bytes()
    (tmp_path / "half.onnx").write_bytes(whole[: len(whole) // 2])
    for file, says in {
        "missing.onnx": "no such file",
        "text.onnx": "expected an ONNX model",
        "empty.onnx": "expected an ONNX model",
        "half.onnx": "half.onnx",
    }.items():
        for verb in ("compile", "explain", "inspect"):
            failed(verb, file, code=3, says=(says, f"where: {file}"))
    failed("verify", "whole.onnx", "half.onnx", code=3, says=("half.onnx",))
    failed("inspect", ".", code=3, says=("manifest.json",))


def test_weights_of_the_wrong_shape(tmp_path: Path, failed: Failing) -> None:
    key = "stage0.rbr_dense.conv.weight"
    save_file({key: np.zeros((1, 2, 3, 4), np.float32)}, tmp_path / "w.safetensors")
    says = (key, "[48, 3, 3, 3]", "[1, 2, 3, 4]", "w.safetensors")
    failed("compile", "repvgg_a0", "--weights", "w.safetensors", code=3, says=says)


def test_sizes_that_the_model_does_not_have(tmp_path: Path, failed: Failing) -> None:
    write_onnx(tmp_path / "m.onnx")
    for option in ("--batch", "--size"):
        args = ("compile", "m.onnx", option, "5")
        failed(*args, code=3, says=("'image' has a fixed size of", "not 5"))


def test_unwritable_output_is_told_before_the_work(tmp_path: Path, failed: Failing) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    write_onnx(tmp_path / "m.onnx")
    for folder in ("file/engine", "file", "mine"):
        shown = failed("compile", "m.onnx", "-o", folder, code=2, says=(folder,))
        assert "exporting" not in shown
    (tmp_path / "build").touch()  # where the default folder would be
    shown = failed("compile", "m.onnx", code=2, says=("error[OUTPUT]",))
    assert "exporting" not in shown


@pytest.mark.parametrize(("model", "stage"), [("repvgg_a0", "exporting"), ("m.onnx", "proving")])
def test_ctrl_c_leaves_nothing(model: str, stage: str, tmp_path: Path) -> None:
    """The stages that begin before the signal arrives are shown too: how many is a race."""
    write_onnx(tmp_path / "m.onnx", size=1000)
    present = below(tmp_path)
    process = subprocess.Popen(
        [*COMMAND, "compile", model, "--no-time"],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # shells may ignore it
    )
    assert process.stderr is not None
    while stage not in process.stderr.readline():
        assert process.poll() is None
    time.sleep(0.2)  # into the middle of the stage
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    *stages, last = err.splitlines()
    assert (process.returncode, out, last) == (130, "", "interrupted")
    assert all(re.fullmatch(r" +\d+\.\d s  \w.*", shown) for shown in stages), stages
    assert below(tmp_path) == present


@pytest.fixture
def ctrl_c() -> Iterator[Callable[[], None]]:
    """Presses Ctrl-C in this process, even if it was started with the signal ignored."""
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield lambda: signal.raise_signal(signal.SIGINT)
    found = signal.signal(signal.SIGINT, usual)
    assert found is signal.default_int_handler  # interruptible put it back


def test_ctrl_c_that_a_library_makes_its_own_error(ctrl_c: Callable[[], None]) -> None:
    with pytest.raises(KeyboardInterrupt), interruptible():
        try:
            ctrl_c()
        except KeyboardInterrupt:
            raise RuntimeError("export failed") from None


def test_ctrl_c_that_a_library_drops(ctrl_c: Callable[[], None]) -> None:
    with pytest.raises(KeyboardInterrupt), interruptible() as check:
        with suppress(KeyboardInterrupt):
            ctrl_c()
        check()
        pytest.fail("the next stage began")
    with pytest.raises(KeyboardInterrupt), interruptible(), suppress(KeyboardInterrupt):
        ctrl_c()


def test_ctrl_c_inside_a_destructor(
    ctrl_c: Callable[[], None], capsys: pytest.CaptureFixture[str]
) -> None:
    class Dying:
        def __del__(self) -> None:
            ctrl_c()

    with pytest.raises(KeyboardInterrupt), interruptible() as check:
        del [Dying()][0]
        check()
        pytest.fail("the next stage began")
    assert capsys.readouterr().err == ""


def raising(error: Exception) -> int:
    def run() -> None:
        raise error

    return exit_code_of(run, ["compile"])


def test_exit_code_and_message_of_each_error(capsys: pytest.CaptureFixture[str]) -> None:
    for error, code in ((NotEquivalent("no"), 4), (BuildError("no"), 8), (InputError("no"), 3)):
        assert raising(error) == code
        assert capsys.readouterr().err == f"error[{error.code}]: no\n"
    assert raising(ValueError("broken\nbadly")) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("error[INTERNAL]: ValueError: broken; run again with --debug")
    assert shown.count("\n") == 1


def test_names_from_a_model_cannot_act_on_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    name = "\x1b[2Jfine\nerror[INPUT]: \u202eall is lost [bold]"
    raising(InputError(f"bad node {name}", where=name))
    shown = capsys.readouterr().err
    assert "\x1b" not in shown and "\u202e" not in shown
    assert "\\x1b[2Jfine" in shown and "[bold]" in shown
    assert sum(line.startswith("error[") for line in shown.splitlines()) == 1


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    done = flatfold("compile", "missing.onnx", "--debug", cwd=tmp_path)
    assert done.returncode == 3
    assert "Traceback" in done.stderr and "no such file" in done.stderr


def test_a_reader_that_leaves_is_no_error(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*COMMAND, "models", "--json"],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    with process.stderr as stream:
        assert stream.read() == b""
    assert process.wait(timeout=60) == 1
