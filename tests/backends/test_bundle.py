"""Bundles: damage is detected, and equal engines are saved as equal bytes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import flatfold
from flatfold.backends.base import Engine
from flatfold.backends.onnxruntime import cpu
from flatfold.backends.store import bundle, model_file
from flatfold.errors import InputError
from tests.backends.small_nets import build, content, image, reference

FILES = ["engine.onnx", "manifest.json", "model.onnx"]
ROOT = Path(__file__).parents[2]


def reseal(folder: Path, **changes: Any) -> None:
    """Changes the manifest, with a matching checksum."""
    manifest = {**json.loads((folder / "manifest.json").read_text()), **changes}
    (folder / "manifest.json").write_bytes(bundle._render(bundle._sealed(manifest)))


def test_load_brings_everything_back(engine: Engine, saved: Path) -> None:
    assert sorted(content(saved)) == FILES
    x = image(3)
    with bundle.load(saved) as loaded:
        assert loaded.manifest == {"model": "small", "remarks": ["ü", 1, None], "seed": 0}
        assert (loaded.inputs, loaded.outputs) == (engine.inputs, engine.outputs)
        assert (loaded.precision, loaded.describe()) == (engine.precision, engine.describe())
        for name, array in loaded.run({"image": x}).items():
            np.testing.assert_array_equal(array, engine.run({"image": x})[name])


def test_load_in_a_fresh_process(saved: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", image(2))
    code = (
        "import sys, numpy as np\nfrom flatfold.backends.store import bundle\n"
        "y, mean = bundle.load(sys.argv[1])(np.load('x.npy'))\nnp.save('y.npy', y)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, str(saved)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    expected, _, bound = reference(image(2))
    assert np.abs(np.load(tmp_path / "y.npy") - expected).max() <= bound


def test_equal_engines_give_equal_bytes(engine: Engine, saved: Path, tmp_path: Path) -> None:
    engine.save(tmp_path / "again")
    with build() as other:
        other.save(tmp_path / "other")
    with bundle.load(saved) as loaded:
        loaded.save(tmp_path / "loaded")
        loaded.save(saved)  # over the folder it came from
    for name in ("again", "other", "loaded"):
        assert content(tmp_path / name) == content(saved)


def test_equal_engines_give_equal_bytes_across_processes(saved: Path, tmp_path: Path) -> None:
    code = "import sys\nfrom tests.backends.small_nets import build\nbuild().save(sys.argv[1])\n"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "7"}
    command = [sys.executable, "-c", code, str(tmp_path / "there")]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True)
    assert content(tmp_path / "there") == content(saved)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("place", [0, 0.37, 0.5, 0.81, 1])
@pytest.mark.parametrize("bit", [0, 7])
def test_a_flipped_bit_is_found(saved: Path, name: str, place: float, bit: int) -> None:
    raw = bytearray((saved / name).read_bytes())
    raw[int(place * (len(raw) - 1))] ^= 1 << bit
    (saved / name).write_bytes(raw)
    with pytest.raises(InputError, match=rf"damaged: {name}: "):
        bundle.load(saved)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("share", [0, 0.5, 0.99])
def test_a_truncated_file_is_found(saved: Path, name: str, share: float) -> None:
    raw = (saved / name).read_bytes()
    (saved / name).write_bytes(raw[: int(share * len(raw))])
    with pytest.raises(InputError, match=rf"damaged: {name}: "):
        bundle.load(saved)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_found(saved: Path, name: str) -> None:
    (saved / name).unlink()
    with pytest.raises(InputError, match=rf"damaged: {name}: No such file"):
        bundle.load(saved)


@pytest.mark.parametrize("name", ["engine.onnx", "model.onnx"])
def test_a_file_of_another_engine_is_found(saved: Path, tmp_path: Path, name: str) -> None:
    with build(seed=1) as other:
        other.save(tmp_path / "other")
    (saved / name).write_bytes((tmp_path / "other" / name).read_bytes())
    with pytest.raises(InputError, match=rf"damaged: {name}: its SHA-256"):
        bundle.load(saved)


@pytest.mark.parametrize("name", FILES)
def test_links_and_pipes_are_refused(saved: Path, tmp_path: Path, name: str) -> None:
    (saved / name).rename(tmp_path / name)
    (saved / name).symlink_to(tmp_path / name)
    with pytest.raises(InputError, match=rf"damaged: {name}: "):
        bundle.load(saved)
    (saved / name).unlink()
    os.mkfifo(saved / name)
    with pytest.raises(InputError, match=rf"damaged: {name}: it is not a regular file"):
        bundle.load(saved)


@pytest.mark.parametrize("name", ["", *FILES])
def test_what_anybody_may_write_to_is_not_loaded(saved: Path, name: str) -> None:
    usual = (saved / name).stat().st_mode
    (saved / name).chmod(0o777 if not name else 0o666)
    with pytest.raises(InputError, match=f"{name or 'net'} is world-writable") as caught:
        flatfold.load(saved)
    assert caught.value.hint.startswith(f"chmod -R o-w {saved}")
    (saved / name).chmod(usual)
    flatfold.load(saved).close()


def test_what_is_saved_can_be_loaded_whatever_the_umask(engine: Engine, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        engine.save(tmp_path / "net")
    finally:
        os.umask(before)
    flatfold.load(tmp_path / "net").close()


@pytest.mark.parametrize("name", ["../net/model.onnx", "/etc/hostname", "a\\b", "..", ""])
def test_paths_that_leave_the_folder_are_refused(saved: Path, name: str) -> None:
    files = json.loads((saved / "manifest.json").read_text())["files"]
    reseal(saved, files={**files, name: files["model.onnx"]})
    with pytest.raises(InputError, match="a file outside the folder"):
        bundle.load(saved)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"schema": 2}, "expected bundle schema 1, found 2"),
        ({"kind": "other"}, "does not describe a flatfold engine"),
        ({"files": []}, "no 'files' of type dict"),
        ({"outputs": []}, "its outputs are not those of the engine"),
    ],
)
def test_a_manifest_that_says_something_else(
    saved: Path, changes: dict[str, Any], expected: str
) -> None:
    reseal(saved, **changes)
    with pytest.raises(InputError) as caught:
        bundle.load(saved)
    assert expected in caught.value.cause


def test_what_is_no_bundle(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    for name, found in [("none", "found nothing"), ("file", "found a file"), ("empty", "No such")]:
        with pytest.raises(InputError) as caught:
            bundle.load(tmp_path / name)
        assert found in caught.value.cause


@pytest.mark.parametrize("changed", ["onnxruntime", "processor"])
def test_made_elsewhere_is_rebuilt_and_said(
    saved: Path, changed: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    if changed == "processor":
        monkeypatch.setattr(cpu, "processor", lambda: "another")
    else:
        versions = json.loads((saved / "manifest.json").read_text())["versions"]
        reseal(saved, versions={**versions, "onnxruntime": "1.0"})
    expected, _, bound = reference(image(2))
    with bundle.load(saved) as loaded:
        assert np.abs(loaded(image(2))[0] - expected).max() <= bound
    assert "rebuilding the engine from model.onnx: it was built" in caplog.text


def test_large_weights_go_to_a_file_of_their_own(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_file, "EXTERNAL_ABOVE", 100)
    monkeypatch.setattr(cpu, "EXTERNAL_ABOVE", 100)
    engine.save(tmp_path / "net")
    assert sorted(content(tmp_path / "net")) == [
        "manifest.json",
        "model.onnx",
        "model.onnx.data",
    ]
    with bundle.load(tmp_path / "net") as loaded:
        np.testing.assert_array_equal(loaded(image(2))[0], engine(image(2))[0])
        loaded.save(tmp_path / "again")
        assert content(tmp_path / "again") == content(tmp_path / "net")
        loaded.save(tmp_path / "net")
    assert content(tmp_path / "again") == content(tmp_path / "net")
    (tmp_path / "elsewhere").write_bytes((tmp_path / "net" / "model.onnx.data").read_bytes())
    files = json.loads((tmp_path / "net" / "manifest.json").read_text())["files"]
    reseal(tmp_path / "net", files={"model.onnx": files["model.onnx"]})
    with pytest.raises(InputError, match=r"reads a foreign file, 'model\.onnx\.data'"):
        bundle.load(tmp_path / "net")
