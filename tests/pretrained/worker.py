"""One tool on one pretrained file, in a process of its own; prints a line of JSON.

python -m tests.pretrained.worker flatfold IN.onnx OUT.onnx
python -m tests.pretrained.worker onnxsim IN.onnx OUT.onnx
python -m tests.pretrained.worker compare IN.onnx OUT.onnx
"""

from __future__ import annotations

import json
import logging
import os
import resource
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import onnx

from tests.pretrained.sizes import Feeds, runs, two_sizes

Result = TypeVar("Result")

# Rounding of a network in single precision, part of its largest output: some 1,700 roundings. What
# a network does with rounding beyond that is measured, by moving its inputs by one.
ROUNDING, ROUNDOFF, FACTOR = 1e-4, 2.0**-24, 16


def cpu_seconds() -> float:
    """CPU time of this process and of its children, those that have ended and those that run."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    own = time.process_time() + ended.ru_utime + ended.ru_stime
    return own + sum(map(_cpu_seconds_of, _running_children()))


def _running_children() -> set[str]:
    """Their process numbers; none where the system does not list them."""
    lists = Path("/proc/self/task").glob("*/children")
    return {number for file in lists for number in file.read_text().split()}


def _cpu_seconds_of(process: str) -> float:
    """User and system time of a process, and of its children that have ended."""
    fields = Path("/proc", process, "stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def timed(work: Callable[[], Result]) -> tuple[Result, dict[str, float]]:
    """What `work` returns, and CPU times in seconds.

    whole: of this process up to its end, which starts Python and loads all libraries. cpu: of
    doing it once more, with the libraries loaded.
    """
    result, whole = work(), cpu_seconds()
    work()
    return result, {"whole": whole, "cpu": cpu_seconds() - whole}


def nodes_of(graph: onnx.GraphProto) -> int:
    """Nodes of a graph and of all bodies in it."""
    bodies = [a.g for node in graph.node for a in node.attribute if a.HasField("g")]
    return len(graph.node) + sum(map(nodes_of, bodies))


def with_flatfold(path: str, out: str) -> dict[str, Any]:
    import flatfold
    from flatfold.errors import FlatfoldError, NotEquivalent

    try:
        result, times = timed(lambda: flatfold.optimize(path))
    except NotEquivalent as error:
        return {"verdict": "refuted", "reason": str(error)}
    except FlatfoldError as error:
        return {"verdict": "refused", "reason": str(error)}
    result.save(out)
    after = nodes_of(result.model.graph)
    reason = result.equivalence.reason or ""
    return {"verdict": result.equivalence.verdict, "reason": reason, "nodes": after, **times}


def with_onnxsim(path: str, out: str) -> dict[str, Any]:
    import onnxsim

    (model, _), times = timed(lambda: onnxsim.simplify(path))
    return {"nodes": nodes_of(model.graph), **times}


def compared(path: str, out: str) -> dict[str, Any]:
    """Whether both files run alike at up to two sizes, with ONNX Runtime's optimisations off."""
    nodes = nodes_of(onnx.load(path, load_external_data=False).graph)
    try:
        before = _session(path)
    except Exception as why:
        return {"nodes": nodes, "runs": False, "reason": str(why)[:200]}
    sizes = two_sizes(before)
    if not sizes:
        return {"nodes": nodes, "runs": False, "reason": "no size was found that it runs on"}
    said = [_shapes(feeds) for feeds in sizes]
    try:
        after = _session(out)
    except Exception as why:
        return {"nodes": nodes, "runs": True, "sizes": said, "fault": str(why)[:200]}
    faults = [fault for feeds in sizes if (fault := difference(before, after, feeds))]
    return {"nodes": nodes, "runs": True, "sizes": said, "fault": "; ".join(faults)}


def difference(before: Any, after: Any, feeds: Feeds) -> str:
    """How the outputs differ by more than rounding explains; empty where they agree."""
    if not runs(after, feeds):
        return f"does not run on {_shapes(feeds)}"
    first, second = before.run(None, feeds), after.run(None, feeds)
    rng = np.random.default_rng(0)
    moved = before.run(None, {name: _moved(array, rng) for name, array in feeds.items()})
    for index, (a, b, c) in enumerate(zip(first, second, moved, strict=True)):
        if a.shape != b.shape or a.dtype != b.dtype:
            if a.shape != c.shape:
                continue  # rounding decides how many there are
            return f"output {index} is {b.dtype}{b.shape}, was {a.dtype}{a.shape}"
        allowed = ROUNDING * _largest(a) + FACTOR * _gap(a, c)
        if a.size and not _gap(a, b) <= allowed:
            return f"output {index} is off by {_gap(a, b):.3g}, allowed {allowed:.3g}"
    return ""


def _moved(array: Any, rng: np.random.Generator) -> Any:
    """Each number moved up or down by one rounding; whole numbers stay."""
    if array.dtype.kind != "f":
        return array
    size = max(ROUNDOFF, float(np.finfo(array.dtype).epsneg))
    signs = rng.choice([-1.0, 1.0], array.shape)
    return np.asarray(array * (1 + size * signs)).astype(array.dtype)


def _largest(a: Any) -> float:
    finite = np.where(np.isfinite(a), a, 0) if a.dtype.kind == "f" else a
    return float(np.abs(finite.astype(np.float64)).max(initial=0.0)) if a.dtype.kind in "f" else 0.0


def _gap(a: Any, b: Any) -> float:
    if a.shape != b.shape:
        return float("inf")
    first, second = a.astype(np.float64), b.astype(np.float64)
    with np.errstate(invalid="ignore"):
        same = (first == second) | (np.isnan(first) & np.isnan(second))
        return float(np.where(same, 0.0, np.abs(first - second)).max(initial=0.0))


def _shapes(feeds: Feeds) -> str:
    return " ".join("x".join(map(str, array.shape)) or "scalar" for array in feeds.values())


def _session(path: str) -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


TOOLS = {"flatfold": with_flatfold, "onnxsim": with_onnxsim, "compare": compared}


def main() -> None:
    logging.disable()
    warnings.simplefilter("ignore")
    tool, path, out = sys.argv[1:]
    facts = TOOLS[tool](path, out)
    print("FACTS" + json.dumps(facts), flush=True)


if __name__ == "__main__":
    main()
