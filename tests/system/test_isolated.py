"""Building in a child process: the caller gets files or an error, and no process is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import onnx
import pytest

from flatfold.backends.store.model_file import write_model
from flatfold.errors import BuildError, InputError
from flatfold.system.isolated import build_in_subprocess
from flatfold.system.progress import silent
from tests.backends.small_nets import make_model


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    """The folder for temporary folders, so that a test can see which are left."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def built(builder, progress=silent, time_limit=60.0, **options):
    builder = f"tests.system.builders:{builder}"
    settings = {"target": "test", "time_limit": time_limit, "progress": progress}
    return build_in_subprocess(builder, partial(write_model, make_model()), options, **settings)


def alive(pid):
    """Whether a process runs; a zombie does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def wait_until(true, seconds=20.0):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.05)


def test_files_options_and_progress_arrive(scratch):
    said = []
    with built("copies", said.append, answer=42) as folder:
        assert {path.name for path in folder.iterdir()} == {"copy", "options"}
        onnx.checker.check_model(onnx.load(folder / "copy"))
        assert (folder / "options").read_text() == "{'answer': 42}"
    assert said == ["copying"]
    assert not list(scratch.iterdir())


@pytest.mark.parametrize(
    ("builder", "cause"),
    [
        ("fails", "ended with status 1: .*RuntimeError: the SDK has a bug"),
        ("crashes", "was ended by SIGSEGV: .*about to crash"),
    ],
)
def test_a_failure_brings_the_end_of_the_log(scratch, builder, cause):
    with pytest.raises(BuildError, match=cause) as caught, built(builder):
        pass
    assert caught.value.exit_code == 8
    assert not list(scratch.iterdir())


def test_our_own_errors_arrive_as_they_were(scratch):
    with pytest.raises(InputError) as caught, built("refuses"):
        pass
    error = caught.value
    assert (error.cause, error.where, error.hint) == (
        "expected a cat, found a dog",
        "node 3",
        "feed a cat",
    )


def test_what_takes_too_long_is_killed_with_its_children(scratch, tmp_path_factory):
    pids = tmp_path_factory.mktemp("pids") / "pids"
    with (
        pytest.raises(BuildError, match="longer than 5 s"),
        built("hangs", pids=str(pids), time_limit=5.0),
    ):
        pass
    wait_until(lambda: not any(map(alive, pids.read_text().split())))
    assert not list(scratch.iterdir())


def test_an_interrupt_kills_it(scratch, tmp_path_factory):
    pids = tmp_path_factory.mktemp("pids") / "pids"

    def interrupt(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), built("hangs", interrupt, pids=str(pids)):
        pass
    wait_until(lambda: not any(map(alive, pids.read_text().split())))
    assert not list(scratch.iterdir())


def test_it_does_not_outlive_who_asked_for_it(scratch, tmp_path_factory):
    pids = tmp_path_factory.mktemp("pids") / "pids"
    code = (
        "from tests.system.test_isolated import built\n"
        f"with built('hangs', pids={str(pids)!r}): pass"
    )
    paths = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    asking = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": paths})
    wait_until(lambda: pids.exists() and pids.read_text().count(" ") == 1, 60.0)
    asking.send_signal(signal.SIGKILL)
    asking.wait()
    builder, _ = pids.read_text().split()
    wait_until(lambda: not alive(builder))
    os.kill(int(pids.read_text().split()[1]), signal.SIGKILL)
