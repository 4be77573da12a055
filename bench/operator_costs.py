"""Measure the figures of `passes/cost.py` on this machine: what each class of operator costs.

    .venv/bin/python bench/operator_costs.py

Each class is a graph of a few equal nodes, run by ONNX Runtime with its optimisations on, as an
engine would. Printed: multiply-accumulates a second, bytes a second, seconds a node. The cost model
needs only their ratios, in round numbers.
"""

from __future__ import annotations

import statistics
import sys
import time

import numpy as np
import onnxruntime as ort
from onnx import helper, numpy_helper
from rich.console import Console
from rich.table import Table

NODES = 8
ROUNDS = 15


def seconds(kind: str, channels: int, size: int, kernel: int = 1, groups: int = 1) -> float:
    """Median time of one node of this class on a map [1, channels, size, size]."""
    rng = np.random.default_rng(0)
    nodes, constants, value = [], [], "x"
    for i in range(NODES):
        if kind == "Conv":
            weight = rng.standard_normal((channels, channels // groups, kernel, kernel))
            constants.append(numpy_helper.from_array(weight.astype(np.float32), f"w{i}"))
            attributes = {"group": groups, "pads": [kernel // 2] * 4}
            nodes.append(helper.make_node("Conv", [value, f"w{i}"], [f"y{i}"], **attributes))
        else:
            factor = rng.standard_normal((channels, 1, 1)).astype(np.float32)
            constants.append(numpy_helper.from_array(factor, f"w{i}"))
            nodes.append(helper.make_node(kind, [value, f"w{i}"], [f"y{i}"]))
        value = f"y{i}"
    shape = [1, channels, size, size]
    ends = [helper.make_tensor_value_info(name, 1, shape) for name in ("x", value)]
    graph = helper.make_graph(nodes, "profile", ends[:1], ends[1:], constants)
    opset = [helper.make_opsetid("", 18)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=8)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    feeds = {"x": rng.standard_normal(shape).astype(np.float32)}
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        session.run(None, feeds)
        times.append(time.perf_counter() - start)
    return statistics.median(times[3:]) / NODES


def main() -> int:
    table = Table(title="What operators cost here (ONNX Runtime, CPU)", title_justify="left")
    for column in ("class", "map", "time", "figure"):
        table.add_column(column, justify="left" if column == "class" else "right")
    rows = [("dense 3x3", 128, 28, 3, 1), ("dense 3x3", 256, 14, 3, 1), ("dense 7x7", 64, 28, 7, 1)]
    rows += [("pointwise", 128, 28, 1, 1), ("pointwise", 512, 14, 1, 1)]
    rows += [("grouped 3x3, 4 groups", 128, 28, 3, 4)]
    rows += [(f"depthwise {k}x{k}", 128, 28, k, 128) for k in (1, 3, 5, 7, 13, 31)]
    for name, channels, size, kernel, groups in rows:
        took = seconds("Conv", channels, size, kernel, groups)
        macs = channels * (channels // groups) * kernel**2 * size**2
        table.add_row(
            name,
            f"{channels}x{size}x{size}",
            f"{took * 1e6:.0f} us",
            f"{macs / took / 1e9:.1f} GMAC/s",
        )
    took = seconds("Mul", 128, 56)
    moved = 2 * 4 * 128 * 56**2
    table.add_row(
        "elementwise", "128x56x56", f"{took * 1e6:.0f} us", f"{moved / took / 1e9:.1f} GB/s"
    )
    table.add_row("node", "1x1x1", f"{seconds('Mul', 1, 1) * 1e6:.1f} us", "")
    Console(width=100).print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
