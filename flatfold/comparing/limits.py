"""What this machine does at best on a target, beside which the time of a layer is small or large.

A product of matrices is what engines do fastest, and a copy is the least that can be done with data
in memory. Both are run like any variant: in a process of their own, with the same options, threads
and cores.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flatfold.comparing import arrays, copying
from flatfold.comparing.explained import Limit
from flatfold.comparing.process import Process
from flatfold.errors import FlatfoldError

if TYPE_CHECKING:
    import onnx_ir as ir

SIDE = 1536  # rows and columns of the matrices: 9 MiB each
BLOCKS, RUNS = 4, 5
WARM_S = 2.0

Progress = Callable[[str], None]


def measured(
    options: Mapping[str, Mapping[str, object]],
    threads: int,
    affinity: Sequence[int],
    folder: Path,
    progress: Progress,
) -> tuple[Limit, ...]:
    """The limits of the targets in `options`, in float32; `folder` is for files.

    A target that fails has none. Nor has one that computes elsewhere than on the processor: what is
    copied in this memory says nothing of that one, and its times include the way there.
    """
    from flatfold.backends import load_backend
    from flatfold.backends.model_file import write_model

    targets = [target for target in options if load_backend(target).threads]
    if not targets:
        return ()
    product = folder / "product"
    product.mkdir()
    write_model(_product(), product / "model.onnx")
    feeds = product / "feeds.npz"
    arrays.store(feeds, {"x": _drawn(np.random.default_rng(1))})
    common = {"threads": threads, "affinity": list(affinity), "feeds": str(feeds)}
    progress("measuring a copy in memory")
    copy = _best({"variant": "copy", "target": "memory", **common}, folder)
    found = []
    for target in targets:
        progress(f"measuring a product of matrices on target {target}")
        files = {"model": str(product / "model.onnx"), "saved": str(product / target)}
        job = {"variant": "product", "target": target, "options": dict(options[target])}
        least = _best({**job, **files, **common}, folder)
        if least is not None and copy is not None:
            found.append(Limit(target, 2 * SIDE**3 / least, 2 * copying.size() / copy))
    return tuple(found)


def _best(job: Mapping[str, Any], folder: Path) -> float | None:
    """The seconds of the fastest run, None where it fails.

    Not the median: other work only ever makes a run slower, and what is looked for is a limit.
    """
    process = Process(job, folder)
    try:
        process.start()
        process.warm(WARM_S)
        return min(min(process.block(RUNS)) for _ in range(BLOCKS))
    except FlatfoldError:
        return None
    finally:
        process.close()


def _product() -> ir.Model:
    """x @ w, where w is constant like the weights of a layer."""
    import onnx_ir as ir

    kind, shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape([SIDE, SIDE])
    x, y = (ir.Value(name=name, type=kind, shape=shape) for name in "xy")
    weight = ir.tensor(_drawn(np.random.default_rng(0)), name="w")
    w = ir.Value(name="w", type=kind, shape=shape, const_value=weight)
    node = ir.node("MatMul", [x, w], outputs=[y], name="product")
    graph = ir.Graph(
        [x], [y], nodes=[node], initializers=[w], opset_imports={"": 20}, name="product"
    )
    return ir.Model(graph, ir_version=10)


def _drawn(rng: np.random.Generator) -> Any:
    return rng.uniform(-1, 1, (SIDE, SIDE)).astype(np.float32)
