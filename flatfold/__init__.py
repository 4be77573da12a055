"""Compile training-form convolutional networks into the fastest engine that computes the same.

    engine = flatfold.compile("repvgg_a0")      # or a module, an .onnx file, a ModelProto
    y = engine(x)

Importing the package loads no framework and no engine.
"""

from __future__ import annotations

from flatfold.api import compile, create_model, list_models, load, optimize, reduce, verify
from flatfold.benchmark import compare
from flatfold.errors import FlatfoldError
from flatfold.result import Optimized

__version__ = "0.1.0"

__all__ = [
    "FlatfoldError",
    "Optimized",
    "__version__",
    "compare",
    "compile",
    "create_model",
    "list_models",
    "load",
    "optimize",
    "reduce",
    "verify",
]
