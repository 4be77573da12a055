"""No file outside the model's folder is opened, by native code either, and nothing hangs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

import flatfold
from flatfold.backends.onnxruntime import cpu
from flatfold.backends.store import bundle, model_file
from flatfold.errors import InputError
from flatfold.frontend import read_model
from flatfold.frontend.loading import external_data
from flatfold.frontend.loading.external_data import Allowed
from tests.frontend import hostile_paths
from tests.frontend.file_watch import Watch
from tests.frontend.hostile_paths import CASES, TENSORS, WEIGHT, available, model

ROOT = Path(__file__).parents[2]
SECONDS = 120  # for some three hundred calls, each of which takes milliseconds


@pytest.fixture(scope="module")
def every_outcome(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], str]:
    """(case, entry point) -> outcome, from one process whose file accesses the kernel reports."""
    root, bundles = tmp_path_factory.mktemp("cases"), tmp_path_factory.mktemp("bundles")
    for target in available():
        (bundles / "good.onnx").write_bytes(model())
        with flatfold.compile(bundles / "good.onnx", target, verify="off") as engine:
            engine.save(bundles / target)
    for case in CASES:
        for tensor in TENSORS:
            hostile_paths.arrange(root, case, tensor)
        for target in available():
            files = {path.name for path in (bundles / target).glob("*.onnx")}
            for file in sorted(files):
                hostile_paths.arrange_bundle(root, case, bundles / target, file)
    outside = [*root.glob("*/outside"), *root.glob("*/outside/w.bin")]
    with Watch([*outside, Path("/dev/zero")]) as watch:
        command = [sys.executable, "-m", "tests.frontend.hostile_paths", str(root)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=SECONDS
        )
        assert done.returncode == 0, done.stderr[-2000:]
        assert watch.opened() == []
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    return {(case, entry): outcome for case, entry, outcome in lines}


def test_the_watch_sees_reads(tmp_path: Path) -> None:
    """A watch that sees nothing proves nothing: a read by Python, and one by native code."""
    (tmp_path / "w.bin").write_bytes(WEIGHT.tobytes())
    entries = {"location": "w.bin"}
    (tmp_path / "model.onnx").write_bytes(model("initializer", entries))
    (tmp_path / "link").mkdir()
    (tmp_path / "link" / "w.bin").hardlink_to(tmp_path / "w.bin")
    with Watch([tmp_path / "link" / "w.bin"]) as watch:
        (tmp_path / "w.bin").read_bytes()
        assert watch.opened()
        onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
        assert watch.opened()


@pytest.mark.parametrize("case", CASES)
def test_every_entry_point_refuses(every_outcome: dict[tuple[str, str], str], case: str) -> None:
    outcomes = {key: every_outcome[key] for key in every_outcome if key[0].startswith(f"{case}, ")}
    entries = {entry for _, entry in outcomes}
    assert {"optimize", "verify", "inspect", "load", "compile for ort-cpu"} <= entries
    assert len(outcomes) >= len(TENSORS) * 4 + 2
    accepted = {key: text for key, text in outcomes.items() if not text.startswith("refused")}
    assert not accepted


def hub(tmp_path: Path) -> Path:
    """A model as in a hub's cache: links from a snapshot to files named by their hash."""
    for folder in ("blobs", "snapshots/main"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "blobs" / "abc").write_bytes(WEIGHT.tobytes())
    (tmp_path / "blobs" / "def").write_bytes(model("initializer", {"location": "w.bin"}))
    (tmp_path / "snapshots/main/w.bin").symlink_to("../../blobs/abc")
    (tmp_path / "snapshots/main/model.onnx").symlink_to("../../blobs/def")
    return tmp_path / "snapshots/main/model.onnx"


def test_links_below_one_folder_are_allowed_by_option(tmp_path: Path) -> None:
    path = hub(tmp_path)
    with pytest.raises(InputError, match="through a symbolic link"):
        flatfold.optimize(path)
    with pytest.raises(InputError, match="leads out of"):
        flatfold.optimize(path, links_inside=tmp_path / "snapshots")
    assert flatfold.optimize(path, links_inside=tmp_path).equivalence.passed
    assert flatfold.verify(path, path, links_inside=tmp_path).verdict == "identical"
    (tmp_path / "blobs" / "second").hardlink_to(tmp_path / "blobs" / "abc")
    with pytest.raises(InputError, match="a hard link"):
        flatfold.optimize(path, links_inside=tmp_path)


def test_more_weights_than_allowed(tmp_path: Path) -> None:
    (tmp_path / "w.bin").touch()
    os.truncate(tmp_path / "w.bin", 2**40)  # a sparse file, which takes no space
    proto = model("initializer", {"location": "w.bin"})
    path = tmp_path / "model.onnx"
    path.write_bytes(proto)
    assert read_model(path).graph.initializers["w"].const_value is not None
    with pytest.raises(InputError, match=r"weight 'w' calls for 5.36e-07 GiB, and 2.5e-07 GiB are"):
        flatfold.optimize(path, max_weights=1e-6)
    with pytest.raises(InputError, match=r"weights call for at least 2\.68e-06 GiB") as raised:
        external_data._check_sizes(onnx_of(proto, 5), Allowed(max_weights=2.5e-6))
    assert "max_weights=1 " in raised.value.hint and "--max-weights" in raised.value.hint


def onnx_of(content: bytes, copies: int) -> object:
    import onnx

    proto = onnx.load_model_from_string(content)
    for number in range(1, copies):
        tensor = proto.graph.initializer.add()
        tensor.CopyFrom(proto.graph.initializer[0])
        tensor.name = f"w{number}"
    return proto


def test_a_model_file_beyond_protobuf_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(model())
    os.truncate(path, 2**40)
    with pytest.raises(InputError, match="up to 2 GiB") as raised:
        read_model(path)
    assert "save_as_external_data" in raised.value.hint


def test_weights_left_on_disk_cannot_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(external_data, "LEFT_ON_DISK", 16)
    (tmp_path / "w.bin").write_bytes(WEIGHT.tobytes())
    (tmp_path / "model.onnx").write_bytes(model("initializer", {"location": "w.bin"}))
    weight = read_model(tmp_path / "model.onnx").graph.initializers["w"].const_value
    assert weight is not None
    np.testing.assert_array_equal(weight.numpy(), WEIGHT)
    with (tmp_path / "w.bin").open("r+b") as file:
        file.seek(100)
        file.write(b"other")
    with pytest.raises(InputError, match="weight 'w' changed while the model was in use"):
        weight.numpy()
    os.truncate(tmp_path / "w.bin", 100)
    with pytest.raises(InputError, match="shrank"):
        weight.numpy()


@pytest.mark.parametrize("large", [False, True])
def test_engines_get_bytes_of_the_loader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large: bool
) -> None:
    """Or a path in a private folder; never the bytes or the path of the user's file."""
    hidden = b"\xc2\x3e\x06hidden"  # field 1000 of a model, which no version of ONNX has
    user = tmp_path / "user"
    user.mkdir()
    (user / "w.bin").write_bytes(WEIGHT.tobytes())
    (user / "model.onnx").write_bytes(model("initializer", {"location": "w.bin"}) + hidden)
    sources: list[bytes | str] = []

    class Recorded(onnxruntime.InferenceSession):  # type: ignore[misc]
        def __init__(self, source: bytes | str, *args: object, **options: object) -> None:
            sources.append(source)
            if isinstance(source, str):
                sources.append(Path(source).read_bytes())
            super().__init__(source, *args, **options)

    monkeypatch.setattr(onnxruntime, "InferenceSession", Recorded)
    if large:
        for module, limit in (
            (model_file, "EXTERNAL_ABOVE"),
            (cpu, "EXTERNAL_ABOVE"),
            (cpu, "IN_MEMORY_LIMIT"),
        ):
            monkeypatch.setattr(module, limit, 100)
        monkeypatch.setattr(external_data, "LEFT_ON_DISK", 16)
    with flatfold.compile(user / "model.onnx", "ort-cpu") as engine:
        engine.save(user / "bundle")
    flatfold.load(user / "bundle").close()
    assert len(sources) > 3
    assert any(isinstance(source, str) for source in sources) == large
    for source in sources:
        assert not (b"hidden" in source if isinstance(source, bytes) else str(user) in source)


def test_a_pipe_in_place_of_weights_for_a_module(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "w.pt")
    with pytest.raises(InputError, match="no such file"):
        flatfold.optimize("repvgg_a0", weights=tmp_path / "w.pt")


def test_a_bundle_with_a_file_of_any_size_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(model())
    with flatfold.compile(tmp_path / "model.onnx", "ort-cpu", verify="off") as engine:
        engine.save(tmp_path / "bundle")
    os.truncate(tmp_path / "bundle" / "engine.onnx", 2**40)
    with pytest.raises(InputError, match="bytes at most"):
        bundle.load(tmp_path / "bundle")
    os.truncate(tmp_path / "bundle" / "manifest.json", 2**40)
    with pytest.raises(InputError, match="bytes at most"):
        bundle.load(tmp_path / "bundle")
