"""Time of the rewrites: compared with onnxsim on the same files, and on chains of growing length.

    make bench            RepVGG-A0 and B1, VanillaNet-13, RepLKNet-31B, and chains of nodes
    make bench ALL=1      RepVGG-B3 too (a file of half a gigabyte)

Every pair is measured in one process, in turns, and reported as a ratio with its 95 % interval.
What is timed is reading the file, rewriting, and making the new ModelProto; the proof is timed
apart. bench/memory.py defines peak memory.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from contenders import CONTENDERS, flatfold_on
from memory import peaks
from onnx import helper, numpy_helper
from rich.console import Console
from rich.table import Table

from flatfold.frontend import canonicalize
from flatfold.result import summarise
from flatfold.sources import resolve
from flatfold.timing import Timing, interleaved_ratio, measure

MODELS = ("repvgg_a0", "repvgg_b1", "vanillanet_13", "replknet_31b")
COLLECT = "collect"  # nothing is collected while timing, and a graph is hundreds of megabytes
CHAINS = (1000, 2000, 4000)

note = Console(stderr=True)


def training_form(name: str, folder: Path) -> tuple[Path, int]:
    """The exported training form as a file, and its number of weights."""
    note.print(f"exporting {name}")
    graph = resolve(name).model
    canonicalize(graph)
    path = folder / f"{name}.onnx"
    ir.save(graph, path)
    return path, summarise(graph).parameters


def chain(length: int, folder: Path) -> Path:
    """Conv - BatchNormalization - Relu over and over, small maps, `length` nodes."""
    rng = np.random.default_rng(0)
    nodes, constants, value = [], {}, "x"
    for i in range(length // 3):
        constants[f"w{i}"] = rng.standard_normal((8, 8, 3, 3)).astype(np.float32) / 9
        for part, low in zip("gbmv", (0.5, -0.1, -0.1, 0.5), strict=True):
            constants[f"{part}{i}"] = rng.uniform(low, 1.0, 8).astype(np.float32)
        norm = [f"{part}{i}" for part in "gbmv"]
        nodes += [
            helper.make_node("Conv", [value, f"w{i}"], [f"c{i}"], pads=[1] * 4),
            helper.make_node("BatchNormalization", [f"c{i}", *norm], [f"n{i}"]),
            helper.make_node("Relu", [f"n{i}"], [f"r{i}"]),
        ]
        value = f"r{i}"
    shape = [1, 8, 8, 8]
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x", 1, shape)],
        [helper.make_tensor_value_info(value, 1, shape)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    path = folder / f"chain_{length}.onnx"
    onnx.save(onnx.shape_inference.infer_shapes(model), path)
    return path


def against_onnxsim(files: dict[str, tuple[Path, int]], budget: float) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for name, (path, weights) in files.items():
        note.print(f"measuring {name}")
        runs: dict[str, Callable[[], object]] = {COLLECT: gc.collect}
        runs |= {contender: partial(run, path) for contender, run in CONTENDERS.items()}
        times = measure(runs, rounds=10, budget_s=budget)
        del times[COLLECT]
        rows.append({"name": name, "weights": weights, **_row(times)})
    return rows


def _row(times: dict[str, Timing]) -> dict[str, Any]:
    sim = times["onnxsim"]
    row: dict[str, Any] = {f"{name} [s]": timing.median for name, timing in times.items()}
    for name in ("flatfold", "flatfold, checked"):
        quotient = interleaved_ratio(times[name], sim)
        row[f"{name} / onnxsim"] = (quotient.value, *quotient.interval)
    return row


def growth(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of RepVGG: time and weights as multiples of the first row's."""
    rows = [row for row in rows if row["name"].startswith("repvgg")]
    first = rows[0]
    return [
        {
            "name": f"{row['name']} over {first['name']}",
            "weights": row["weights"] / first["weights"],
            "time": row["flatfold [s]"] / first["flatfold [s]"],
        }
        for row in rows[1:]
    ]


def chains(folder: Path, budget: float) -> list[dict[str, Any]]:
    note.print("measuring chains")
    paths = {length: chain(length, folder) for length in CHAINS}
    runs = {str(length): partial(flatfold_on, path) for length, path in paths.items()}
    times = measure(runs, rounds=10, budget_s=budget)
    base = times[str(CHAINS[0])]
    return [
        {
            "nodes": length,
            "seconds": times[str(length)].median,
            "time over 1,000": interleaved_ratio(times[str(length)], base).value,
            "exponent": _exponent(times[str(length)].median / base.median, length / CHAINS[0]),
        }
        for length in CHAINS
    ]


def _exponent(time: float, size: float) -> float | None:
    """e in time = size ** e: 1 is linear."""
    return math.log(time) / math.log(size) if size > 1 else None


def show(title: str, rows: list[dict[str, Any]]) -> None:
    table = Table(title=title, title_justify="left")
    for column in rows[0]:
        table.add_column(column, justify="left" if column == "name" else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(_text(value) for value in row.values()))
    Console(width=140).print(table)


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return f"{value[0]:.2f} ({value[1]:.2f} to {value[2]:.2f})"
    if isinstance(value, float):
        return f"{value:.2f}"
    return "" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--all", action="store_true", help="repvgg_b3 too")
    parser.add_argument("--budget", type=float, default=60.0, help="seconds per comparison")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    names = (*MODELS, "repvgg_b3") if options.all else MODELS
    with tempfile.TemporaryDirectory() as folder:
        lengths = chains(Path(folder), options.budget)
        files = {name: training_form(name, Path(folder)) for name in names}
        rows = against_onnxsim(files, options.budget)
        note.print("measuring memory")
        warm_up = chain(30, Path(folder))
        memory = [peaks(name, path, warm_up) for name, (path, _) in files.items()]
    show(
        "Time of optimize, and of onnxsim on the same file (median; ratio with 95 % interval)", rows
    )
    show("Peak memory of optimize as a multiple of the model file", memory)
    show("Growth of optimize's time and of the weights", growth(rows))
    show("optimize on a chain of nodes: an exponent of 1 is linear time", lengths)
    if options.json:
        figures = {"models": rows, "memory": memory, "growth": growth(rows), "chains": lengths}
        options.json.write_text(json.dumps(figures, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
