"""A bundle: an engine saved as a folder, which is complete or does not exist.

    manifest.json      target, interface, versions, and the SHA-256 of each file and of itself
    certificate.json   what was proved of each change; only if something was proved
    model.onnx         the graph that the engine was built from
    model.onnx.data    its weights, only if they exceed 1 GiB
    engine...          the files of the engine itself

Equal engines are saved as equal bytes. The hashes detect damaged and exchanged files. Who can write
to the folder can also write matching hashes, so load bundles only from sources you trust; a bundle
that every user of the machine can write to is refused.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flatfold.backends.store.files import (
    close_to_others,
    damaged,
    read,
    read_verified,
    refuse_writable,
    sha256,
    verify,
)
from flatfold.backends.store.model_file import write_model
from flatfold.errors import InputError, OutputError
from flatfold.system.atomic import (
    MOVE_AWAY,
    atomic_folder,
    os_errors_as_ours,
    probe_writable,
    refuse_foreign,
)
from flatfold.system.host import versions
from flatfold.text import clean

if TYPE_CHECKING:
    import onnx_ir as ir

    from flatfold.backends.base import Engine


_log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
MODEL = "model.onnx"
CERTIFICATE = "certificate.json"
KIND = "flatfold-bundle"
SCHEMA = 1
_LONGEST_MANIFEST = 2**28
_PACKAGES = ("numpy", "onnx", "onnx-ir")
_FIELDS = {
    "target": str,
    "precision": str,
    "inputs": list,
    "outputs": list,
    "versions": dict,
    "engine": dict,
    "files": dict,
    "record": dict,
}


def save(engine: Engine, folder: str | os.PathLike[str]) -> None:
    """Writes `engine` to `folder`, replacing a bundle that is there.

    Raises OutputError where the folder cannot be written, or holds files that flatfold did not
    write. On any exception, including Ctrl-C, the folder is left as it was before.
    """
    destination = Path(folder).resolve()
    with os_errors_as_ours(destination):
        _refuse_foreign(destination)
        with atomic_folder(destination) as staging:
            write_model(engine.model, staging / MODEL)
            engine.write_files(staging)
            if engine.certificate is not None:
                (staging / CERTIFICATE).write_bytes(_render(engine.certificate))
            manifest = _manifest(engine, staging)
            (staging / MANIFEST).write_bytes(_render(_sealed(manifest)))
            close_to_others(staging)


def load(folder: str | os.PathLike[str]) -> Engine:
    """The engine saved in `folder`.

    Raises InputError where a file has changed since it was saved, or every user can write to it.
    """
    from flatfold.backends import load_backend

    place = Path(folder)
    manifest = read_manifest(place)
    for name in sorted(manifest["files"]):
        verify(place, name, manifest)
    refuse_writable(place, (MANIFEST, *manifest["files"]))
    engine = load_backend(manifest["target"]).load(place, manifest)
    engine.manifest = dict(manifest["record"])
    engine.certificate = read_certificate(place, manifest)
    for key, specs in (("inputs", engine.inputs), ("outputs", engine.outputs)):
        if [spec.to_json() for spec in specs] != manifest[key]:
            raise damaged(place, MANIFEST, f"its {key} are not those of the engine")
    return engine


def check_writable(folder: str | os.PathLike[str]) -> None:
    """Raises OutputError if `save` to `folder` would fail now. Leaves no file behind.

    To be called before long work whose result is to be saved.
    """
    destination = Path(folder).resolve()
    with os_errors_as_ours(destination):
        _refuse_foreign(destination)
        probe_writable(destination)


def read_manifest(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """The manifest of a bundle, checked; its other files are not read."""
    place = Path(folder)
    if not place.is_dir():
        raise InputError(
            "expected the folder of a saved engine, found "
            + ("a file" if place.exists() else "nothing"),
            where=str(place),
            hint="engine.save(folder) and `flatfold compile` write one",
        )
    raw = read(place / MANIFEST, _LONGEST_MANIFEST)
    try:
        manifest = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise damaged(place, MANIFEST, f"it is not JSON: {error}") from error
    if not isinstance(manifest, dict) or manifest.get("kind") != KIND:
        raise damaged(place, MANIFEST, "it does not describe a flatfold engine")
    if manifest.get("schema") != SCHEMA:
        raise InputError(
            f"expected bundle schema {SCHEMA}, found {manifest.get('schema')!r}",
            where=str(place / MANIFEST),
            hint="another version of flatfold wrote it; compile again",
        )
    # Byte for byte, so that even a changed space is reported as damage.
    if raw != _render(_sealed(manifest)):
        raise damaged(place, MANIFEST, "its checksum does not match its content")
    _check_fields(place, manifest)
    return manifest


def read_certificate(folder: Path, manifest: Mapping[str, Any]) -> dict[str, Any] | None:
    """The certificate of a bundle; None if it has none."""
    if CERTIFICATE not in manifest["files"]:
        return None
    try:
        certificate = json.loads(read_verified(folder, CERTIFICATE, manifest))
    except (ValueError, RecursionError) as error:
        raise damaged(folder, CERTIFICATE, f"it is not JSON: {error}") from error
    if not isinstance(certificate, dict):
        raise damaged(folder, CERTIFICATE, "it is not a certificate")
    return certificate


def load_model(folder: Path, manifest: Mapping[str, Any]) -> ir.Model:
    """The graph of a bundle, checked again; external data is only read from files of the bundle."""
    from flatfold.frontend import read_model
    from flatfold.frontend.loading.external_data import Allowed

    files = frozenset(manifest["files"])
    for name in (MODEL, f"{MODEL}.data"):
        if name in files:
            verify(folder, name, manifest)
    if MODEL not in files:
        raise damaged(folder, MODEL, "the manifest does not list it")
    return read_model(folder / MODEL, Allowed(math.inf, files=files), keep_shapes=True)


def read_engine(folder: Path, name: str, manifest: Mapping[str, Any]) -> bytes:
    """The content of an ONNX file of the engine, which must contain its weights.

    An engine gets these bytes and not the path: it would read files that the model refers to.
    """
    from flatfold.frontend.loading.load import require_whole

    content = read_verified(folder, name, manifest)
    try:
        require_whole(content)
    except InputError as error:
        raise damaged(folder, name, error.cause) from error
    return content


def rebuild_reason(
    manifest: Mapping[str, Any], file: str, packages: Iterable[str], device: str, here: str
) -> str:
    """Why the engine in `file` must be built again; "" if it can be used.

    It can be used if the installed `packages` have the versions that built it, and if the manifest
    has the value `here` for `device`, which is "processor" or "device".
    """
    if file not in manifest["files"]:
        return "the engine was too large to save"
    for package in packages:
        built_with = str(manifest["versions"].get(package, ""))
        installed = versions([package])[package]
        if built_with != installed:
            version = clean(built_with) or "none"
            return f"it was built with {package} {version}, this is {installed or 'none'}"
    built = str(manifest["engine"].get(device))
    if built != here:
        return f"it was built for {clean(built)}, this is {here}"
    return ""


def log_rebuild(folder: Path, reason: str) -> None:
    """Logs a warning that explains why loading takes long and latencies may differ."""
    _log.warning("%s: rebuilding the engine from %s: %s", clean(str(folder)), MODEL, reason)


def _manifest(engine: Engine, staging: Path) -> dict[str, Any]:
    names = sorted(entry.name for entry in staging.iterdir())
    return {
        "kind": KIND,
        "schema": SCHEMA,
        "target": engine.target,
        "precision": engine.precision,
        "inputs": [spec.to_json() for spec in engine.inputs],
        "outputs": [spec.to_json() for spec in engine.outputs],
        "versions": versions((*_PACKAGES, *engine.packages)),
        "engine": engine.describe(),
        "files": {name: sha256(staging / name) for name in names},
        "record": engine.manifest,
    }


def _sealed(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest with the hash of all other fields under "sha256"."""
    content = {key: value for key, value in manifest.items() if key != "sha256"}
    return {**content, "sha256": hashlib.sha256(_render(content)).hexdigest()}


def _render(manifest: Mapping[str, Any]) -> bytes:
    return (json.dumps(manifest, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()


def _check_fields(folder: Path, manifest: Mapping[str, Any]) -> None:
    for key, kind in _FIELDS.items():
        if not isinstance(manifest.get(key), kind):
            raise damaged(folder, MANIFEST, f"it has no {key!r} of type {kind.__name__}")
    for name in manifest["files"]:
        # A bundle has no subfolders, so a name with a folder leads out of it.
        if name in ("", ".", "..", MANIFEST) or "/" in name or "\\" in name or "\0" in name:
            raise damaged(folder, MANIFEST, f"it lists a file outside the folder, {name!r}")


def _refuse_foreign(destination: Path) -> None:
    """Raises OutputError if the folder has other files than a bundle: saving replaces it."""
    if destination.exists() and not destination.is_dir():
        raise OutputError("expected a folder, found a file", where=str(destination))
    if not destination.is_dir() or not any(destination.iterdir()):
        return
    try:
        known = {MANIFEST, *read_manifest(destination)["files"]}
    except InputError as error:
        cause = "the folder is not empty and holds no flatfold engine"
        raise OutputError(cause, where=str(destination), hint=MOVE_AWAY) from error
    refuse_foreign(destination, known)
