"""The cache on the command line: what a second compile says, and the verbs about the cache."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from flatfold.__main__ import run
from flatfold.backends.store import model_file
from flatfold.cli import compile
from flatfold.cli.console import age
from tests.cli.running import write_onnx
from tests.cli.test_listing import SDKS, loaded_by

Read = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the cache; the current one is empty."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    monkeypatch.setenv("FLATFOLD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def result(capsys: Read, *args: str, code: int = 0) -> dict[str, Any]:
    assert run([*args, "--json"]) == code
    return dict(json.loads(capsys.readouterr().out))


def text(capsys: Read, *args: str, code: int = 0) -> str:
    assert run(args) == code
    return capsys.readouterr().out


def compiled(capsys: Read, *options: str, size: int = 9) -> dict[str, Any]:
    model = f"m{size}.onnx"
    if not Path(model).exists():
        write_onnx(Path(model), size=size)
    return result(capsys, "compile", model, "--no-time", "--verify", "bound", *options)


def folders(cache: Path) -> list[Path]:
    return sorted((cache / "engines").glob("??/*"))


def test_a_second_compile_says_the_same(
    capsys: Read, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    monkeypatch.setattr(compile, "BUDGET_S", 0.1)
    write_onnx(Path("m.onnx"))
    shown = [text(capsys, "compile", "m.onnx", "-o", "e").splitlines() for _ in range(2)]
    cache_lines = [line for line in shown[1] if line.startswith("cache ")]
    assert len(cache_lines) == 1 and "built before" in cache_lines[0]
    first, second = (
        [line.split() for line in lines if not line.startswith(("latency", "cache "))]
        for lines in shown
    )
    assert first == second and len(first) > 8
    assert all("alternating runs" in "".join(lines) for lines in shown)
    assert len(folders(cache)) == 1


def test_json_says_where_the_engine_came_from(capsys: Read, cache: Path, tmp_path: Path) -> None:
    output = [compiled(capsys) for _ in range(2)]
    assert [one.pop("cached") for one in output] == [False, True]
    assert output[0] == output[1]
    assert compiled(capsys, "--no-cache")["cached"] is False
    other = ("--cache-dir", str(tmp_path / "other"))
    assert [compiled(capsys, *other)["cached"] for _ in range(2)] == [False, True]
    assert compiled(capsys, "--threads", "1")["cached"] is False
    assert (len(folders(cache)), len(folders(tmp_path / "other"))) == (2, 1)


def test_list(capsys: Read, cache: Path) -> None:
    assert text(capsys, "cache", "list") == f"the cache is empty: {cache}\n"
    for size in (9, 8):
        compiled(capsys, size=size)
    output = result(capsys, "cache", "list")
    assert (output["folder"], len(output["entries"])) == (str(cache), 2)
    assert [entry["model"] for entry in output["entries"]] == ["m9", "m8"]
    assert output["bytes"] == sum(f.stat().st_size for d in folders(cache) for f in d.iterdir())
    first = output["entries"][0]
    assert 0 <= time.time() - first["used"] < 600 and first["target"] == "ort-cpu"
    shown = text(capsys, "cache", "list").splitlines()
    assert shown[0].split() == ["key", "model", "target", "size", "built", "last", "used"]
    assert shown[1].split()[:3] == [first["key"][:12], "m9", "ort-cpu"]


def test_a_cache_that_is_off(capsys: Read, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    monkeypatch.setenv("FLATFOLD_CACHE", "")
    assert compiled(capsys)["cached"] is compiled(capsys)["cached"] is False
    for verb in (("list",), ("verify",), ("prune", "--all")):
        assert text(capsys, "cache", *verb) == "the cache is off\n"
        assert result(capsys, "cache", *verb)["folder"] is None
    assert not cache.exists()


def test_verify_finds_damage_and_repairs_it(capsys: Read, cache: Path) -> None:
    for size in (9, 8):
        compiled(capsys, size=size)
    assert text(capsys, "cache", "verify").startswith("sound: 2 engines of ")
    model = folders(cache)[0] / "model.onnx"
    model.write_bytes(model.read_bytes()[:-1])
    shown = text(capsys, "cache", "verify", code=3)
    assert f"{model.parent.name[:12]}  m" in shown and "model.onnx: its SHA-256" in shown
    assert "damaged: 1 engine of " in shown and "--repair" in shown
    output = result(capsys, "cache", "verify", code=3)
    assert (output["sound"], output["repaired"]) == (False, False)
    assert sorted(bool(entry["damage"]) for entry in output["entries"]) == [False, True]
    assert "removed" in text(capsys, "cache", "verify", "--repair")
    assert result(capsys, "cache", "verify")["sound"] is True
    assert len(folders(cache)) == 1


def test_damage_of_a_manifest_is_listed(capsys: Read, cache: Path) -> None:
    compiled(capsys)
    (folders(cache)[0] / "manifest.json").write_text("{}")
    assert "damaged" in text(capsys, "cache", "list")
    assert "it does not describe a flatfold engine" in text(capsys, "cache", "verify", code=3)
    assert compiled(capsys)["cached"] is False
    assert text(capsys, "cache", "verify").startswith("sound: 1 engine of ")


def test_verify_refuses_a_folder_that_others_may_write_to(capsys: Read, cache: Path) -> None:
    compiled(capsys)
    cache.chmod(0o777)
    assert run(["cache", "verify"]) == 3
    shown = capsys.readouterr().err
    assert "anybody may write to the cache" in shown and f"try: chmod -R o-w {cache}" in shown


@pytest.mark.parametrize(
    ("options", "left"),
    [
        (["--older-than", "2h"], ["m7", "m8"]),
        (["--older-than", "1.5d"], ["m9", "m7", "m8"]),
        (["--max-size", "{two}B"], ["m7", "m8"]),
        (["--max-size", "1 kB"], []),
        (["--max-size", "1MiB"], ["m9", "m7", "m8"]),
        (["--older-than", "2h", "--max-size", "0B"], []),
        (["--all"], []),
    ],
)
def test_prune(options: list[str], left: list[str], capsys: Read, cache: Path) -> None:
    hours = {"m9": 24, "m7": 1, "m8": 0}
    for name in hours:
        compiled(capsys, size=int(name[1:]))
    entries = result(capsys, "cache", "list")["entries"]
    for entry in entries:
        when = time.time() - 3600 * hours[entry["model"]]
        manifest = next(cache.glob(f"engines/??/{entry['key']}")) / "manifest.json"
        os.utime(manifest, (when, when))
    size = {entry["model"]: entry["bytes"] for entry in entries}
    options = [option.format(two=size["m7"] + size["m8"]) for option in options]
    output = result(capsys, "cache", "prune", *options)
    assert [entry["model"] for entry in result(capsys, "cache", "list")["entries"]] == left
    assert len(output["removed"]) == 3 - len(left)
    assert output["freed"] == sum(size[name] for name in set(hours) - set(left))


def test_prune_wants_to_be_told_what(capsys: Read) -> None:
    compiled(capsys)
    for options in ([], ["--max-size", "big"], ["--older-than", "30"], ["--older-than", "1y"]):
        assert run(["cache", "prune", *options]) == 2
        assert "error[USAGE]" in capsys.readouterr().err
    assert "removed 1 engine of " in text(capsys, "cache", "prune", "--all")


@pytest.mark.parametrize("verb", ["list", "verify"])
def test_the_verbs_load_no_sdk(verb: str, capsys: Read) -> None:
    compiled(capsys)
    assert not SDKS & loaded_by("cache", verb)


def test_ages() -> None:
    shown = [age(seconds) for seconds in (-1, 0, 119, 5400, 3600 * 47, 86400 * 30)]
    assert shown == ["0 s", "0 s", "119 s", "90 min", "47 h", "30 d"]


def test_large_weights_are_cached_too(
    capsys: Read, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    monkeypatch.setattr(model_file, "EXTERNAL_ABOVE", 100)
    assert [compiled(capsys)["cached"] for _ in range(2)] == [False, True]
    assert (folders(cache)[0] / "model.onnx.data").exists()
