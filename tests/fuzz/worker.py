"""Rewrite random graphs and compare each with its original; a line of JSON before and after each.

python -m tests.fuzz.worker FIRST LAST VERIFY [FOLDER]

With a folder, what fails is made smaller and written there as FAULT_SEED.onnx.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import traceback
import warnings
from pathlib import Path

import onnx

import flatfold
from flatfold.errors import FlatfoldError, NotEquivalent
from tests.fuzz.comparison import difference
from tests.fuzz.draw import draw
from tests.fuzz.shrink import Case, shrink
from tests.fuzz.sketch import Array


def outcome(model: onnx.ModelProto, feeds: list[dict[str, Array]], verify: str) -> str:
    """What becomes of a model: "right VERDICT", or "refused", "alarm", "internal", "wrong"."""
    try:
        result = flatfold.optimize(model, verify=verify)
    except NotEquivalent as error:
        return f"alarm {error.cause} {error.where}"
    except FlatfoldError as error:
        return f"refused {error.code}: {error.cause}"
    except Exception as error:
        trace = traceback.extract_tb(error.__traceback__)
        frames = [f for f in trace if "flatfold" in f.filename]
        at = f"{frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno}" if frames else "?"
        return f"internal {type(error).__name__} at {at}: {str(error)[:200]}"
    for arrays in feeds:
        fault = difference(model, result.model, arrays)
        if fault:
            return f"wrong {fault}"
    return f"right {result.equivalence.verdict}"


def kind_of(fault: str) -> str:
    """What two faults have in common that are the same: without names and numbers."""
    plain = re.sub(r"'[^']*'", "_", fault)
    return " ".join(re.sub(r"[-+.\d]+(e[-+]?\d+)?", "", plain).split()[:6])


def save_smaller(seed: int, case: Case, fault: str, verify: str, folder: Path) -> None:
    kind = kind_of(fault)
    model, _ = shrink(case, lambda c: kind_of(outcome(c[0], [c[1]], verify)) == kind)
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(model, folder / f"{fault.partition(' ')[0]}_{seed}.onnx")


def main(first: int, last: int, verify: str, folder: str = "") -> None:
    logging.disable()
    warnings.simplefilter("ignore")
    for seed in range(first, last):
        print(json.dumps([seed]), flush=True)
        drawn = draw(seed)
        if drawn is None:
            print(json.dumps([seed, "nothing drawn"]), flush=True)
            continue
        what = outcome(drawn.model, drawn.feeds, verify)
        print(json.dumps([seed, what]), flush=True)
        if folder and not what.startswith("right"):
            save_smaller(seed, (drawn.model, drawn.feeds[0]), what, verify, Path(folder))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
