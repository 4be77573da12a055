"""Compile training-form convolutional networks into the fastest engine that computes the same.

    engine = flatfold.compile("repvgg_a0")      # or a module, an .onnx file, a ModelProto
    y = engine(x)

    api.py            the public functions
    compiler.py       the steps from a model to an engine, in one class
    sources.py        any form of model, as the graph to compile
    engine_cache.py   engines that were built before
    auto_target.py    target "auto": the fastest of the targets that run here
    calibration.py    data that a model is run on to see how large its values are
    images.py         a folder of images as such data
    narrowing.py      what can compute in half the bits
    precision.py      the precision that is asked for
    tuning.py         forms and options that are chosen by time
    result.py         what `optimize` returns
    explanation.py    remarks in groups, with the modules that they are about
    timing.py         statistics of repeated timings
    errors.py         every error that is raised on purpose
    text.py           numbers and names as text that is safe to print

    frontend/         PyTorch modules and ONNX files, as canonical ONNX graphs
    passes/           the rewrites
    backends/         engines, and the folders they are saved in
    models/           networks in their training form
    quantizing/       8 bits, by what the values are on data
    proof/            checks that a rewritten graph computes the same
    benchmark/        the latency report
    cli/              the command line
    system/           processes, files and facts of the machine

Importing the package loads no framework and no engine.
"""

from __future__ import annotations

from flatfold.api import compile, create_model, list_models, load, optimize, reduce, verify
from flatfold.benchmark import compare
from flatfold.errors import FlatfoldError
from flatfold.images import Images
from flatfold.result import Optimized

__version__ = "0.1.0"

__all__ = [
    "FlatfoldError",
    "Images",
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
