"""The cache: engines are complete and undamaged or not found, also after processes were killed."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from flatfold.__main__ import run
from flatfold.backends.base import Engine
from flatfold.backends.store.cache import STALE_S, Cache
from flatfold.errors import InputError, OutputError
from tests.backends.cache_worker import KEYS
from tests.backends.small_nets import content, image

ROOT = Path(__file__).parents[2]
KEY, OTHER = KEYS[:2]


@pytest.fixture
def cache(tmp_path: Path, engine: Engine) -> Cache:
    cache = Cache(tmp_path / "cache")
    cache.open()
    cache.put(KEY, engine)
    return cache


def folder_of(cache: Cache, key: str = KEY) -> Path:
    return cache.root / "engines" / key[:2] / key


def test_what_is_put_is_found(cache: Cache, engine: Engine, tmp_path: Path) -> None:
    found = cache.find(KEY)
    assert found is not None and cache.find(OTHER) is None
    assert found.manifest == engine.manifest == {**found.manifest, "model": "small"}
    np.testing.assert_array_equal(found(image(2))[0], engine(image(2))[0])
    for name, some in (("one", found), ("other", engine)):
        some.save(tmp_path / name)
    assert content(tmp_path / "one") == content(tmp_path / "other")


def test_an_engine_that_was_found_needs_its_folder_no_longer(
    cache: Cache, engine: Engine, tmp_path: Path
) -> None:
    found = cache.find(KEY)
    assert found is not None
    cache.remove(KEY)
    assert cache.entries() == [] and not list(folder_of(cache).parent.iterdir())
    found.save(tmp_path / "one")
    engine.save(tmp_path / "other")
    assert content(tmp_path / "one") == content(tmp_path / "other")
    cache.remove(KEY)  # twice is once


def test_folders_are_for_their_owner_only(tmp_path: Path, engine: Engine) -> None:
    before = os.umask(0)
    try:
        cache = Cache(tmp_path / "deep" / "cache")
        cache.open()
        cache.put(KEY, engine)
    finally:
        os.umask(before)
    made = [path for path in (tmp_path / "deep").rglob("*") if path.is_dir()]
    private = [path for path in made if path != folder_of(cache)]
    assert {stat.S_IMODE(path.stat().st_mode) for path in private} == {0o700}
    assert cache.find(KEY) is not None  # nothing in it is world-writable, or it would be refused


@pytest.mark.parametrize("name", ["", "engines", "locks"])
def test_a_folder_that_others_may_write_to_is_refused(cache: Cache, name: str) -> None:
    (cache.root / name).chmod(0o777)
    with pytest.raises(InputError, match="anybody may write to the cache"):
        cache.open()


def test_a_folder_of_another_user_is_refused(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    with pytest.raises(InputError, match="belongs to another user"):
        cache.check()


@pytest.mark.parametrize("harm", ["flip", "truncate", "remove", "open"])
def test_damage_of_any_file_is_found(cache: Cache, harm: str) -> None:
    for name, raw in content(folder_of(cache)).items():
        path = folder_of(cache) / name
        if harm == "flip":
            path.write_bytes(bytes([raw[0] ^ 1]) + raw[1:])
        elif harm == "truncate":
            path.write_bytes(raw[: len(raw) // 2])
        elif harm == "remove":
            path.unlink()
        else:
            path.chmod(0o666)
        (entry,) = cache.entries()
        assert name in entry.damage()
        with pytest.raises(InputError, match=name):
            cache.find(KEY)
        path.write_bytes(raw)
        path.chmod(0o600)
        assert entry.damage() == ""


def test_a_place_between_that_others_may_write_to_is_refused(cache: Cache) -> None:
    folder_of(cache).parent.chmod(0o777)
    with pytest.raises(InputError, match=f"{KEY[:2]} is world-writable"):
        cache.find(KEY)
    assert "anybody may write" in cache.entries()[0].damage()


def test_two_entries_that_were_swapped_are_found(cache: Cache, engine: Engine) -> None:
    cache.put(OTHER, engine)
    one, other, aside = folder_of(cache), folder_of(cache, OTHER), cache.root / "aside"
    for source, target in ((one, aside), (other, one), (aside, other)):
        source.rename(target)
    for key in (KEY, OTHER):
        with pytest.raises(InputError, match="another engine"):
            cache.find(key)
    assert all("another engine" in entry.damage() for entry in cache.entries())


def test_what_was_used_last_is_last(cache: Cache, engine: Engine) -> None:
    cache.put(OTHER, engine)
    for key, when in ((KEY, 10), (OTHER, 20)):
        os.utime(folder_of(cache, key) / "manifest.json", (when, when))
    assert [entry.key for entry in cache.entries()] == [KEY, OTHER]
    assert cache.find(KEY) is not None
    assert [entry.key for entry in cache.entries()] == [OTHER, KEY]


def test_what_killed_processes_left_is_reaped(cache: Cache, engine: Engine) -> None:
    left = [folder_of(cache).parent / f".flatfold-{n}.new" for n in range(2)]
    for folder, age in zip(left, (STALE_S + 60, STALE_S / 2), strict=True):
        folder.mkdir()
        (folder / "model.onnx").touch()
        os.utime(folder, (time.time() - age,) * 2)
    cache.put(OTHER, engine)
    assert [folder.exists() for folder in left] == [False, True]
    assert [entry.key for entry in cache.entries() if entry.damage()] == []


def test_no_space_is_an_output_error(
    cache: Cache, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left"):
        cache.put(OTHER, engine)
    assert cache.find(OTHER) is None and "cache_key" not in engine.manifest


def worker(*arguments: object) -> None:
    command = [sys.executable, "-m", "tests.backends.cache_worker", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_eight_processes_build_once(tmp_path: Path, saved: Path) -> None:
    log = tmp_path / "log"
    worker("compile", tmp_path / "cache", saved / "model.onnx", log, 8)
    told = log.read_text().splitlines()
    builders = {line.split()[0] for line in told if line.endswith("builds")}
    waiting = {line.split()[0] for line in told if line.endswith("waits")}
    assert len(builders) == len([line for line in told if line.endswith("builds")]) == 1
    assert waiting and not builders & waiting


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_process_that_dies_leaves_a_sound_cache(
    tmp_path: Path, engine: Engine, number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "cache"
    worker("store", root, int(number), 10)
    assert run(["cache", "verify", "--cache-dir", str(root)]) == 0
    assert capsys.readouterr().out.startswith("sound: ")
    if number == signal.SIGINT:
        assert not list(root.rglob(".flatfold-*"))
    cache = Cache(root)
    assert cache.entries()
    for key in KEYS:
        with cache.lock(key, lambda: pytest.fail("the lock outlived its process")):
            cache.remove(key)
            cache.put(key, engine)
            assert cache.find(key) is not None
