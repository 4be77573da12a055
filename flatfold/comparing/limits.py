"""What this machine does at best on a target, beside which the time of a layer is small or large.

A product of matrices is about what engines do fastest, and a copy the least that can be done with
data in memory. Both are run like any variant: in a process of their own, with the same options,
threads and cores.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flatfold.comparing import arrays, copying
from flatfold.comparing.explained import Limit
from flatfold.comparing.process import Process
from flatfold.errors import FlatfoldError

SIDES = (
    768,
    1536,
)  # rows and columns: the smaller stay in the caches, the larger feed more threads
BLOCKS, RUNS = 4, 10
WARM_S = 1.0

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

    targets = [target for target in options if load_backend(target).threads]
    if not targets:
        return ()
    common = {"threads": threads, "affinity": list(affinity)}
    products = {side: _stored(folder / f"product {side}", side) for side in SIDES}
    progress("measuring a copy in memory")
    copy = _best({**common, "variant": "copy", "target": "memory", **products[SIDES[0]]}, folder)
    found = []
    for target in targets:
        progress(f"measuring a product of matrices on target {target}")
        rates = []
        for side, files in products.items():
            saved = {"saved": f"{files['model']}.{target}", "options": dict(options[target])}
            job = {**common, "variant": "product", "target": target, **files, **saved}
            least = _best(job, folder)
            rates += [] if least is None else [2 * side**3 / least]
        if rates and copy is not None:
            found.append(Limit(target, max(rates), 2 * copying.size() / copy))
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


def _stored(folder: Path, side: int) -> dict[str, str]:
    """Files with the model x @ w, where w is constant like the weights of a layer, and with x."""
    import onnx_ir as ir

    from flatfold.backends.model_file import write_model

    kind, shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape([side, side])
    x, y = (ir.Value(name=name, type=kind, shape=shape) for name in "xy")
    rng = np.random.default_rng(0)
    given, weight = (rng.uniform(-1, 1, (side, side)).astype(np.float32) for _ in "xw")
    constant = ir.tensor(weight, name="w")
    w = ir.Value(name="w", type=kind, shape=shape, const_value=constant)
    node = ir.node("MatMul", [x, w], outputs=[y], name="product")
    graph = ir.Graph(
        [x], [y], nodes=[node], initializers=[w], opset_imports={"": 20}, name="product"
    )
    folder.mkdir()
    write_model(ir.Model(graph, ir_version=10), folder / "model.onnx")
    arrays.store(folder / "feeds.npz", {"x": given})
    return {"model": str(folder / "model.onnx"), "feeds": str(folder / "feeds.npz")}
