"""A second compile of the same model and options takes the engine from the cache."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

import flatfold
from flatfold import engine_cache
from flatfold.backends import Engine
from flatfold.backends.onnxruntime.cpu import OrtCpu
from flatfold.compiler import Compiled, Compiler, Options
from flatfold.errors import BuildError
from flatfold.passes import Pipeline
from flatfold.proof.network import run
from flatfold.system.progress import Progress, silent
from tests.backends.small_nets import Array, content
from tests.test_engine_cache_keys import branches

X = np.random.default_rng(0).standard_normal((2, 4, 9, 8)).astype(np.float32)


@pytest.fixture
def model() -> ir.Model:
    return branches()


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was rewritten, proved and built, in turn."""
    steps: list[str] = []

    def recorded(step: str, usual: Callable[..., Any]) -> Callable[..., Any]:
        def act(*args: Any, **options: Any) -> Any:
            steps.append(step)
            return usual(*args, **options)

        return act

    monkeypatch.setattr(Pipeline, "run", recorded("rewritten", Pipeline.run))
    monkeypatch.setattr(run, "compare", recorded("proved", run.compare))
    monkeypatch.setattr(OrtCpu, "build", recorded("built", OrtCpu.build))
    return steps


def compile(
    model: object, cache: Path | str, progress: Progress = silent, **options: Any
) -> Compiled:
    compiler = Compiler.resolve(model, progress)
    return compiler.compile([Options("ort-cpu", tune=0, **options)], cache_dir=cache)


def plain(content: object) -> Any:
    """As it comes back from JSON."""
    return json.loads(json.dumps(content))


def outputs(engine: Engine) -> Array:
    return np.asarray(engine(X))


def entries(cache: Path) -> list[Path]:
    return sorted((cache / "engines").glob("??/*"))


def test_a_hit_does_no_work_and_gives_the_same(
    model: ir.Model, work: list[str], tmp_path: Path
) -> None:
    stages: list[str] = []
    first = compile(model, tmp_path / "cache")
    assert work == ["rewritten", "proved", "built"]
    second = compile(model, tmp_path / "cache", progress=stages.append)
    assert work == ["rewritten", "proved", "built"] and len(entries(tmp_path / "cache")) == 1
    assert stages == ["exporting", "looking in the cache"]
    assert (first.cached, second.cached) == (False, True)
    np.testing.assert_array_equal(outputs(first.engine), outputs(second.engine))
    assert plain(first.engine.manifest) == second.engine.manifest
    for name, compiled in (("one", first), ("two", second)):
        compiled.engine.save(tmp_path / name)
    assert content(tmp_path / "one") == content(tmp_path / "two")


def test_a_result_comes_back_from_its_record(model: ir.Model, tmp_path: Path) -> None:
    results = [compile(model, tmp_path / "cache", verify=v).result for v in ("certify", "off") * 2]
    for first, again in zip(results[:2], results[2:], strict=True):
        same = replace(again, graph=first.graph, original=first.original, training=first.training)
        assert same == first
        assert again.record() == first.record()
        assert again.certificate() == first.certificate()


def test_a_refuted_verdict_survives_json(model: ir.Model) -> None:
    other = branches(weight=1.5)
    verdict = flatfold.verify(model, other)
    assert verdict.faults
    again = type(verdict).from_dict(plain(verdict.to_dict()))
    assert plain(again.to_dict()) == plain(verdict.to_dict())
    assert (again.verdict, str(again)) == ("refuted", str(verdict))
    assert again.faults[0].nodes == verdict.faults[0].nodes


def test_the_public_function_uses_the_folder_of_the_environment(
    model: ir.Model, work: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place, builds in ((str(tmp_path / "cache"), 1), ("", 2)):
        work.clear()
        monkeypatch.setenv("FLATFOLD_CACHE", place)
        for _ in range(2):
            flatfold.compile(model, "ort-cpu", verify="off", tune=0).close()
        assert work.count("built") == builds
    assert len(entries(tmp_path / "cache")) == 1


def test_the_places_of_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLATFOLD_CACHE", str(tmp_path))
    assert engine_cache.cache_folder() == tmp_path
    assert (
        engine_cache.cache_folder("") is None
        and engine_cache.cache_folder("~/x") == Path("~/x").expanduser()
    )
    assert engine_cache.cache_folder("~nobody-of-this-name/x") == Path("~nobody-of-this-name/x")
    monkeypatch.setenv("FLATFOLD_CACHE", "")
    assert engine_cache.cache_folder() is None
    monkeypatch.delenv("FLATFOLD_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    assert engine_cache.cache_folder() == tmp_path / "user" / "flatfold"


@pytest.mark.parametrize("harm", ["flip", "truncate", "swap"])
def test_a_damaged_entry_is_built_again(
    model: ir.Model, work: list[str], harm: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache, other = tmp_path / "cache", branches(weight=1.5)
    expected = [outputs(compile(net, cache, verify="off").engine) for net in (model, other)]
    one, two = entries(cache)
    if harm == "swap":
        for source, target in ((one, tmp_path / "a"), (two, one), (tmp_path / "a", two)):
            source.rename(target)
    else:
        path = one / "engine.onnx"
        raw = bytearray(path.read_bytes())
        raw[len(raw) // 2] ^= 1
        path.write_bytes(raw if harm == "flip" else raw[:-9])
    work.clear()
    for _ in range(2):
        for net, y in zip((model, other), expected, strict=True):
            np.testing.assert_array_equal(outputs(compile(net, cache, verify="off").engine), y)
    times = 2 if harm == "swap" else 1
    assert work == ["rewritten", "built"] * times
    assert caplog.text.count("building it again") == times


def file_in_the_way(cache: Path) -> None:
    cache.touch()


def no_locks(cache: Path) -> None:
    (cache / "engines").mkdir(parents=True, mode=0o700)
    (cache / "locks").touch()


def full(cache: Path) -> None:
    """A file stands where each folder would be made."""
    (cache / "engines").mkdir(parents=True, mode=0o700)
    for n in range(256):
        (cache / "engines" / f"{n:02x}").touch()


def open_to_all(cache: Path) -> None:
    cache.mkdir()
    cache.chmod(0o777)


@pytest.mark.parametrize("harm", [file_in_the_way, no_locks, full, open_to_all, None])
def test_a_cache_that_cannot_be_used_costs_a_warning(
    harm: Callable[[Path], None] | None,
    model: ir.Model,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    cache = tmp_path / "cache" if harm else Path("/proc/nowhere")
    if harm:
        harm(cache)
    compiled = compile(model, cache, verify="off")
    assert outputs(compiled.engine).shape == (2, 4, 9, 8) and not compiled.cached
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert caplog.text.count(f"going on without a cache of engines in {cache}: ") == 1


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_cache_that_may_only_be_read_serves_what_it_has(
    model: ir.Model, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = tmp_path / "cache"
    compile(model, cache, verify="off")
    folders = [cache, *(path for path in cache.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o500)
    assert compile(model, cache, verify="off").cached and not caplog.records
    assert not compile(branches(weight=1.5), cache, verify="off").cached
    assert caplog.text.count("going on without") == 1
    for folder in folders:
        folder.chmod(0o700)


@pytest.mark.parametrize("error", [KeyboardInterrupt, BuildError("no")])
def test_what_fails_leaves_nothing(
    model: ir.Model,
    error: BaseException | type[BaseException],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(OrtCpu, "build", fail)
        with pytest.raises(type(error) if isinstance(error, BuildError) else KeyboardInterrupt):
            compile(model, tmp_path, verify="off")
    assert entries(tmp_path) == []
    assert not compile(model, tmp_path, verify="off").cached  # and the lock is free


def test_a_certificate_from_the_cache_is_about_the_model_that_was_given(tmp_path: Path) -> None:
    """The same engine for a model whose inner values have other names."""
    compiled = [compile(branches(prefix=prefix), tmp_path / "cache") for prefix in ("", "other_")]
    assert [one.cached for one in compiled] == [False, True]
    certificate = compiled[1].engine.certificate
    assert certificate is not None
    verdict = flatfold.verify(
        branches(prefix="other_"), compiled[1].engine.model, certificate=certificate
    )
    assert "the certificate accounts for every new node" in verdict.reason
