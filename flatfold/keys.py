"""What identifies an engine: with all of this equal, the engine built before is the one wanted."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

    from flatfold.backends.base import Backend
    from flatfold.frontend.source import Source
    from flatfold.rewriting import Choice

# What makes the rewritten graph and the proof, whatever the target.
PACKAGES = ("numpy", "onnx", "onnx-ir", "onnxruntime", "onnxscript")
_SOURCES = (".py", ".json")


def key_of(
    source: Source, choice: Choice, backend: Backend, engine_options: Mapping[str, object]
) -> str:
    """SHA-256, in hexadecimal, of everything that decides what is built.

    The model as exported, with the names of values between nodes left out; what was chosen; and
    who builds it: our own source files, the packages, and the device.
    """
    from flatfold.backends.environment import versions

    packages = {*PACKAGES, *backend.packages}
    packages |= {"torch"} if source.module is not None else set()  # it is the reference then
    packages |= {"onnxsim"} if choice.simplify else set()
    content = {
        "graph": graph_hash(source.model),
        "name": source.name,
        "reference": source.module is not None,
        "target": backend.name,
        "device": backend.device(),
        "options": sorted((str(name), repr(value)) for name, value in engine_options.items()),
        "passes": [rewrite.name for rewrite in choice.rewrites()],
        "verify": choice.verify,
        "simplify": choice.simplify,
        "flatfold": source_hash(),  # the version is in it
        "versions": versions(sorted(packages)),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def graph_hash(model: ir.Model) -> str:
    """SHA-256 of a model, comments and all, but for what values between nodes are called."""
    import onnx_ir as ir

    from flatfold.backends.skeleton import skeleton

    content = ir.to_proto(skeleton(model)).SerializeToString(deterministic=True)
    return hashlib.sha256(content).hexdigest()


@cache
def source_hash() -> str:
    """SHA-256 of flatfold's own source files: a changed rewrite never serves what the old made."""
    root = Path(__file__).parent
    digest = hashlib.sha256()
    for folder, below, names in os.walk(root, followlinks=True):
        below.sort()
        for name in sorted(name for name in names if name.endswith(_SOURCES)):
            path = Path(folder, name)
            content = path.read_bytes()
            digest.update(f"{path.relative_to(root).as_posix()} {len(content)}\n".encode())
            digest.update(content)
    return digest.hexdigest()
