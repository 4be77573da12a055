"""Models that refer to files they must not read, and a program that opens them.

    python -m tests.frontend.hostile_paths FOLDER

prints one line of JSON for each case below FOLDER and each entry point of the package: its outcome.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

import flatfold
from flatfold.__main__ import run
from flatfold.backends import availability_table
from flatfold.backends.store import bundle, files
from flatfold.errors import InputError

MARKER = np.full((4, 4, 3, 3), 1234.5, np.float32)  # the content of the file outside
WEIGHT = np.ones((4, 4, 3, 3), np.float32)
BYTES = WEIGHT.nbytes

Entries = dict[str, str]
Case = Callable[[Path, Path], Entries]


def parent(outside: Path, inside: Path) -> Entries:
    return {"location": "../outside/w.bin"}


def nested_parent(outside: Path, inside: Path) -> Entries:
    (inside / "sub").mkdir()
    return {"location": "sub/../../outside/w.bin"}


def absolute(outside: Path, inside: Path) -> Entries:
    return {"location": str(outside / "w.bin")}


def symlink_to_file(outside: Path, inside: Path) -> Entries:
    (inside / "w.bin").symlink_to(outside / "w.bin")
    return {"location": "w.bin"}


def symlink_to_folder(outside: Path, inside: Path) -> Entries:
    (inside / "link").symlink_to(outside, target_is_directory=True)
    return {"location": "link/w.bin"}


def symlink_that_stays_inside(outside: Path, inside: Path) -> Entries:
    (inside / "plain.bin").write_bytes(WEIGHT.tobytes())
    (inside / "w.bin").symlink_to("plain.bin")
    return {"location": "w.bin"}


def hard_link(outside: Path, inside: Path) -> Entries:
    (inside / "w.bin").hardlink_to(outside / "w.bin")
    return {"location": "w.bin"}


def fifo(outside: Path, inside: Path) -> Entries:
    os.mkfifo(inside / "w.bin")
    return {"location": "w.bin"}


def folder(outside: Path, inside: Path) -> Entries:
    (inside / "w.bin").mkdir()
    return {"location": "w.bin"}


def device(outside: Path, inside: Path) -> Entries:
    (inside / "w.bin").symlink_to("/dev/zero")
    return {"location": "w.bin"}


def plain(**entries: str) -> Case:
    """A file inside the folder, and `entries` that do not fit it."""

    def case(outside: Path, inside: Path) -> Entries:
        (inside / "w.bin").write_bytes(WEIGHT.tobytes())
        return {"location": "w.bin", **entries}

    return case


CASES: dict[str, Case] = {
    "parent": parent,
    "nested parent": nested_parent,
    "absolute": absolute,
    "symlink to a file": symlink_to_file,
    "symlink to a folder": symlink_to_folder,
    "symlink that stays inside": symlink_that_stays_inside,
    "hard link": hard_link,
    "fifo": fifo,
    "folder": folder,
    "device": device,
    "absent": lambda outside, inside: {"location": "w.bin"},
    "negative offset": plain(offset="-4"),
    "offset beyond the end": plain(offset="8"),
    "huge offset": plain(offset="9" * 5000),
    "short length": plain(length=str(BYTES - 4)),
    "long length": plain(length=str(BYTES + 4)),
    "length of 1 TiB": plain(length=str(2**40)),
}
PLAIN = [name for name in CASES if "offset" in name or "length" in name]
TENSORS = ("initializer", "attribute", "body")


def arrange(root: Path, case: str, tensor: str) -> None:
    """Write the model of one case into its folder."""
    outside, inside = _folders(root / f"{case}, {tensor}")
    inside.mkdir()
    (inside / "model.onnx").write_bytes(model(tensor, CASES[case](outside, inside)))


def arrange_bundle(root: Path, case: str, saved: Path, file: str) -> None:
    """Copy the bundle `saved` with `file` replaced by the model of one case, and reseal it."""
    outside, inside = _folders(root / f"{case}, {saved.name}, {file}")
    shutil.copytree(saved, inside)
    entries = CASES[case](outside, inside)
    (inside / file).write_bytes(model("initializer", entries))
    manifest = json.loads((inside / "manifest.json").read_text())
    manifest["files"][file] = files.sha256(inside / file)
    if entries["location"] == "w.bin":
        data = WEIGHT if case in PLAIN else MARKER  # what the forged manifest expects
        manifest["files"]["w.bin"] = hashlib.sha256(data.tobytes()).hexdigest()
    if file == "model.onnx":  # otherwise it is not read: the engine's file is enough
        manifest["versions"]["onnxruntime"] = "another"
    (inside / "manifest.json").write_bytes(bundle._render(bundle._sealed(manifest)))


def _folders(home: Path) -> tuple[Path, Path]:
    home.mkdir()
    outside = home / "outside"
    outside.mkdir()
    (outside / "w.bin").write_bytes(MARKER.tobytes())
    return outside, home / "inside"


def model(tensor: str = "initializer", entries: Entries | None = None) -> bytes:
    """A convolution whose weight is an initializer, a Constant node, or one in the body of an If.

    With `entries`, the model refers to a file for it.
    """
    weight = numpy_helper.from_array(WEIGHT, "w")
    if entries is not None:
        weight.ClearField("raw_data")
        weight.data_location = TensorProto.EXTERNAL
        for key, value in entries.items():
            weight.external_data.add(key=key, value=value)
    head = '<ir_version: 10, opset_import: ["" : 20]> g'
    text = {
        "initializer": "{ y = Conv <pads = [1, 1, 1, 1]> (x, w) }",
        "attribute": "{ w = Constant () y = Conv <pads = [1, 1, 1, 1]> (x, w) }",
        "body": "<bool yes = {1}> { y = If (yes) <then_branch = t () => (float[1, 4, 8, 8] a)"
        " { a = Conv <pads = [1, 1, 1, 1]> (x, w) }, else_branch = e () => (float[1, 4, 8, 8] b)"
        " { b = Identity (x) }> }",
    }[tensor]
    proto = onnx.parser.parse_model(f"{head} (float[1, 4, 8, 8] x) => (float[1, 4, 8, 8] y) {text}")
    if tensor == "initializer":
        proto.graph.initializer.append(weight)
    elif tensor == "attribute":
        proto.graph.node[0].attribute.append(onnx.helper.make_attribute("value", weight))
    else:
        proto.graph.node[0].attribute[0].g.initializer.append(weight)
    content: bytes = proto.SerializeToString()
    return content


def entry_points(inside: Path) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Every call that opens a model file."""
    path = inside / "model.onnx"
    if (inside / "manifest.json").exists():
        yield "load", lambda: flatfold.load(inside)
        return
    yield "optimize", lambda: flatfold.optimize(path)
    yield "verify", lambda: flatfold.verify(path, path)
    yield "inspect", lambda: _inspect(path)
    for target in available():
        yield f"compile for {target}", lambda target=target: flatfold.compile(path, target)


def _inspect(path: Path) -> None:
    if run(["inspect", str(path)]) == InputError.exit_code:
        raise InputError("inspect")


def available() -> list[str]:
    return [name for name, availability in availability_table().items() if availability.available]


def main(root: Path) -> None:
    for inside in sorted(root.glob("*/inside")):
        for entry, call in entry_points(inside):
            print(json.dumps([inside.parent.name, entry, "hung"]), flush=True)
            try:
                call()
                outcome = "accepted"
            except InputError as error:
                outcome = f"refused: {error.cause}"
            print(json.dumps([inside.parent.name, entry, outcome]), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
