"""From what a caller calls a model to a canonical graph of the ONNX IR.

    source.py           Source, resolve: modules, files, names and protos
    pytorch/            PyTorch modules: export, example inputs, weights, running them
    loading/            ONNX files and protos: read, check, external data
    canonicalization/   canonicalize: one form for the graphs of every exporter

Importing the package loads neither torch nor an engine.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flatfold.frontend.canonicalization.canonicalize import canonicalize
    from flatfold.frontend.loading.load import from_proto, read_model
    from flatfold.frontend.source import Source, resolve

__all__ = ["Source", "canonicalize", "from_proto", "read_model", "resolve"]

_MODULES = {
    "Source": "source",
    "canonicalize": "canonicalization.canonicalize",
    "from_proto": "loading.load",
    "read_model": "loading.load",
    "resolve": "source",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
