"""A worker that runs `optimize` on mutants and prints a line of JSON before and after each.

python -m tests.mutants.worker FIRST LAST
"""

from __future__ import annotations

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
from pathlib import Path

import onnx

import flatfold
from flatfold.errors import FlatfoldError, PassError
from tests.mutants.changes import mutant

MEMORY = 12 * 2**30  # of address space, most of which the libraries only reserve


def outcome(path: Path) -> str:
    """What `optimize` does with a model file: "refused CODE", "passed VERDICT", or a fault."""
    try:
        result = flatfold.optimize(path)
    except PassError as error:
        return f"wrong {error.code}: {error.cause}"
    except FlatfoldError as error:
        return f"refused {error.code}"
    except Exception as error:
        trace = traceback.extract_tb(error.__traceback__)
        frames = [f for f in trace if "flatfold" in f.filename]
        at = f"{frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno}" if frames else "?"
        return f"crashed {type(error).__name__} at {at}: {str(error)[:200]}"
    onnx.checker.check_model(result.model)
    return f"passed {result.equivalence.verdict}"


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
