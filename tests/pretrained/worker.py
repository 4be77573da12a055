"""One tool on one pretrained file, in a process of its own; prints a line of JSON.

python -m tests.pretrained.worker flatfold IN.onnx OUT.onnx
python -m tests.pretrained.worker onnxsim IN.onnx OUT.onnx
python -m tests.pretrained.worker compare IN.onnx OUT.onnx
"""

from __future__ import annotations

import json
import logging
import resource
import sys
import time
import warnings
from typing import Any

import numpy as np
import onnx

from tests.pretrained.sizes import Feeds, runs, two_sizes

# Rounding of a network in single precision, part of its largest output: some 1,700 roundings. What
# a network does with rounding beyond that is measured, by moving its inputs by one.
ROUNDING, ROUNDOFF, FACTOR = 1e-4, 2.0**-24, 16


def cpu_seconds() -> float:
    """CPU time of this process and of the children that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def nodes_of(graph: onnx.GraphProto) -> int:
    """Nodes of a graph and of all bodies in it."""
    bodies = [a.g for node in graph.node for a in node.attribute if a.HasField("g")]
    return len(graph.node) + sum(map(nodes_of, bodies))


def with_flatfold(path: str, out: str) -> dict[str, Any]:
    import flatfold.compiler
    import flatfold.proof
    from flatfold.errors import FlatfoldError, NotEquivalent

    start = cpu_seconds()
    try:
        result = flatfold.optimize(path)
    except NotEquivalent as error:
        return {"verdict": "refuted", "reason": str(error), "cpu": cpu_seconds() - start}
    except FlatfoldError as error:
        return {"verdict": "refused", "reason": str(error), "cpu": cpu_seconds() - start}
    cpu = cpu_seconds() - start
    result.save(out)
    after = nodes_of(result.model.graph)
    reason = result.equivalence.reason or ""
    return {"verdict": result.equivalence.verdict, "reason": reason, "cpu": cpu, "nodes": after}


def with_onnxsim(path: str, out: str) -> dict[str, Any]:
    import onnxsim

    start = cpu_seconds()
    model, _ = onnxsim.simplify(path)
    return {"cpu": cpu_seconds() - start, "nodes": nodes_of(model.graph)}


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
