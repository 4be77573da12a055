"""An engine is saved completely or not at all, and files of others are never replaced."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flatfold.backends.base import Engine
from flatfold.backends.store import bundle
from flatfold.errors import OutputError
from flatfold.system import atomic
from tests.backends.small_nets import build, content

FILES = ["engine.onnx", "manifest.json", "model.onnx"]
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "where", ["flatfold.backends.store.bundle._render", "os.rename", "os.fsync"]
)
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
@pytest.mark.parametrize("replaces", [False, True])
def test_an_interrupted_save_leaves_what_was_there(
    engine: Engine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
    error: BaseException | type[BaseException],
    replaces: bool,
) -> None:
    target = tmp_path / "net" if replaces else tmp_path / "deep" / "net"
    if replaces:
        engine.save(target)
    before = content(target) if replaces else {}

    def interrupt(*_: object) -> None:
        raise error

    with monkeypatch.context() as patch, build(seed=1) as other:
        patch.setattr(where, interrupt)
        with pytest.raises(KeyboardInterrupt if error is KeyboardInterrupt else OutputError):
            other.save(target)
    assert sorted(p.name for p in tmp_path.iterdir()) == (["net"] if replaces else [])
    assert (content(target) if replaces else {}) == before


def test_interrupted_between_the_two_renames_puts_the_old_one_back(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, rename, calls = content(saved), os.rename, []

    def second_fails(source: Path, target: Path) -> None:
        calls.append(source)
        if len(calls) == 2:
            raise KeyboardInterrupt
        rename(source, target)

    with monkeypatch.context() as patch, build(seed=1) as other:
        patch.setattr(atomic.os, "rename", second_fails)
        with pytest.raises(KeyboardInterrupt):
            other.save(saved)
    assert content(saved) == before
    assert [p.name for p in saved.parent.iterdir()] == ["net"]


def test_a_file_size_limit_is_an_output_error(tmp_path: Path) -> None:
    code = (
        "import resource, signal, sys\n"
        "from flatfold.errors import OutputError\n"
        "from tests.backends.small_nets import build\n"
        "engine = build()\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)\n"
        "try: engine.save(sys.argv[1])\n"
        "except OutputError as error: sys.stdout.write(str(error))\n"
    )
    size = len((_saved_model(tmp_path)).read_bytes())
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for limit in (size // 2, size + 16):  # model.onnx does not fit; it fits, the engine does not
        command = [sys.executable, "-c", code, str(tmp_path / "net"), str(limit)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert done.stdout.startswith("error[OUTPUT]: cannot write"), (limit, done)
        assert [p.name for p in tmp_path.iterdir()] == ["reference"]


def _saved_model(tmp_path: Path) -> Path:
    with build() as engine:
        engine.save(tmp_path / "reference")
    return tmp_path / "reference" / "model.onnx"


@pytest.mark.parametrize("place", ["file/below", "file/far/below", "/proc/nowhere", "/sys/a/b"])
def test_an_unwritable_place(engine: Engine, tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("mine")
    for act in (bundle.check_writable, engine.save):
        with pytest.raises(OutputError, match="cannot write here"):
            act(tmp_path / place)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_nothing_of_the_user_is_replaced(engine: Engine, saved: Path, tmp_path: Path) -> None:
    (saved / "notes.txt").write_text("mine")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name, cause in [
        ("net", "files that flatfold did not write: notes.txt"),
        ("thesis", "is not empty and holds no flatfold engine"),
        ("file", "expected a folder, found a file"),
    ]:
        for act in (bundle.check_writable, engine.save):
            with pytest.raises(OutputError, match=cause):
                act(tmp_path / name)
    assert (saved / "notes.txt").read_text() == "mine"
    assert (tmp_path / "file").read_text() == "mine"


def test_check_writable_leaves_nothing(saved: Path, tmp_path: Path) -> None:
    before = content(saved)
    (tmp_path / "empty").mkdir()
    for place in (saved, tmp_path / "empty", tmp_path / "new", tmp_path / "new" / "deep"):
        bundle.check_writable(place)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty", "net"]
    assert content(saved) == before


def test_saving_through_a_link_or_into_an_empty_folder(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    engine.save(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert sorted(content(tmp_path / "empty")) == FILES
