"""A worker that loads, inspects, optimizes and verifies mutants; a line of JSON around each.

python -m tests.mutants.worker FIRST LAST
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

import onnx

import flatfold
from flatfold.errors import FlatfoldError, PassError
from tests.mutants.changes import mutant, original

MEMORY = 12 * 2**30  # of address space, most of which the libraries only reserve


def outcome(path: Path) -> str:
    """What is done with a model file: "refused CODE", "passed VERDICT", or a fault.

    All four entries have to answer: reading it, `inspect` of the command line, `optimize`, and
    `verify` of the result against the file; `verify` of the file against the model that it is a
    mutant of, where the file is not rewritten.
    """
    faults = [fault for entry in (_read, _inspected) if (fault := _fault_of(entry, path))]
    if faults:
        return faults[0]
    try:
        result = flatfold.optimize(path)
    except PassError as error:
        return f"wrong {error.code}: {error.cause}"
    except FlatfoldError as error:
        return _fault_of(_verified, path) or f"refused {error.code}"
    except Exception as error:
        return _crashed("optimize", error)
    fault = _unlike(path, result.model)
    if fault:
        return fault
    after = path.with_name("after.onnx")
    result.save(after)
    try:
        proof = flatfold.verify(path, after)
    except FlatfoldError as error:
        if result.equivalence.verdict == "identical":
            return f"refused {error.code}"  # nothing was run before
        return f"wrong {error.code} of verify, after optimize: {error.cause}"
    except Exception as error:
        return _crashed("verify", error)
    if proof.verdict == "refuted":
        return f"wrong refuted by verify: {proof.reason}"
    return f"passed {result.equivalence.verdict}"


def _unlike(path: Path, model: onnx.ModelProto) -> str:
    """What onnx.checker says of a result, where it accepts the original."""
    try:
        onnx.checker.check_model(str(path))
    except (onnx.checker.ValidationError, UnicodeDecodeError):
        return ""  # such as an output without a shape, which stays as it is
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        return f"wrong by onnx.checker: {error}"
    return ""


def _read(path: Path) -> None:
    from flatfold.sources import resolve

    resolve(path)


def _inspected(path: Path) -> None:
    from flatfold.cli.inspect import inspect

    with contextlib.redirect_stdout(io.StringIO()):
        inspect(str(path), json=True)


def _verified(path: Path) -> None:
    first = path.with_name("original.onnx")
    if not first.exists():
        first.write_bytes(original())
    flatfold.verify(first, path)


def _fault_of(entry: Callable[[Path], None], path: Path) -> str:
    """How an entry fails that neither answers nor refuses."""
    try:
        entry(path)
    except FlatfoldError:
        return ""
    except Exception as error:
        return _crashed(entry.__name__, error)
    return ""


def _crashed(entry: str, error: Exception) -> str:
    trace = traceback.extract_tb(error.__traceback__)
    frames = [f for f in trace if "flatfold" in f.filename]
    at = f"{frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno}" if frames else "?"
    return f"crashed {entry} {type(error).__name__} at {at}: {str(error)[:200]}"


def _misbehave(seed: int) -> None:
    """Hang or die at the seeds that the test of the supervisor names."""
    if os.environ.get("FLATFOLD_MUTANT_THAT_HANGS") == str(seed):
        time.sleep(1000)
    if os.environ.get("FLATFOLD_MUTANT_THAT_DIES") == str(seed):
        os.kill(os.getpid(), signal.SIGSEGV)


def main(first: int, last: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    logging.disable()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        for seed in range(first, last):
            print(json.dumps([seed]), flush=True)
            _misbehave(seed)
            path.write_bytes(mutant(seed))
            print(json.dumps([seed, outcome(path)]), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
