"""Whether equalisation keeps every bit of a network's outputs, in ONNX Runtime as it stands."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnxruntime

from flatfold.passes import EqualizeChannels, Pipeline
from flatfold.passes.pipeline import Check
from tests.equalize.draw import draw

Array = npt.NDArray[np.generic]


def equalized(model: onnx.ModelProto, check: Check | None = None) -> tuple[onnx.ModelProto, bool]:
    """The network with equalised channels, and whether any constant changed."""
    graph = ir.from_proto(model)
    remarks = Pipeline([EqualizeChannels()], check=check).run(graph)
    return ir.to_proto(graph), any(remark.applied for remark in remarks)


def run_as_it_is(model: onnx.ModelProto, x: Array) -> list[Array]:
    """The outputs on one thread, nothing optimised."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    outputs: list[Array] = session.run(None, {session.get_inputs()[0].name: x})
    return outputs


def outcome(seed: int) -> str:
    """What becomes of one network: "equal", "unchanged", "not finite" or "different ..."."""
    model, x = draw(seed)
    new, changed = equalized(model)
    before = run_as_it_is(model, x)
    if not changed:
        return "unchanged"
    after = run_as_it_is(new, x)
    if any(a.tobytes() != b.tobytes() for a, b in zip(before, after, strict=True)):
        return f"different: {different(before, after)}"
    return "equal" if all(np.isfinite(array).all() for array in before) else "not finite"


def different(before: list[Array], after: list[Array]) -> str:
    """Where and by how much."""
    said = []
    for index, (a, b) in enumerate(zip(before, after, strict=True)):
        unlike = np.flatnonzero(a.reshape(-1) != b.reshape(-1))
        if unlike.size:
            one, two = (array.reshape(-1)[unlike[0]] for array in (a, b))
            said.append(f"output {index}, {unlike.size} of {a.size}: {one!r} and {two!r}")
    return "; ".join(said)
