"""Engines and models on disk.

bundle.py        an engine saved as a folder: written whole, checked when it is loaded
files.py         reading the files of a bundle safely
model_file.py    a model as an ONNX file or as bytes
fingerprint.py   the copy of a model that is hashed to identify it
cache.py         the cache of engines
"""

from __future__ import annotations

from flatfold.backends.store.bundle import (
    MANIFEST,
    check_writable,
    load,
    load_model,
    read_certificate,
    read_manifest,
    save,
)
from flatfold.backends.store.cache import Cache, Entry
from flatfold.backends.store.fingerprint import structural_copy
from flatfold.backends.store.model_file import save_model, write_model

__all__ = [
    "MANIFEST",
    "Cache",
    "Entry",
    "check_writable",
    "load",
    "load_model",
    "read_certificate",
    "read_manifest",
    "save",
    "save_model",
    "structural_copy",
    "write_model",
]
