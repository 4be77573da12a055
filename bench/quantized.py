"""Networks in 8 bits, in bfloat16 and by other quantizers, beside float32 on the same engine.

    make quantized                  docs/measured/quantized.md
    make quantized MATCH=repvgg     the networks with "repvgg" in their name; writes nothing
    make quantized SECONDS=5        that much timing for each row

Each tool gets the graph that flatfold has rewritten in float32, and the same pictures to see how
large its values are; `ratio` is the processor time of what it makes of that over float32, one
thread each, in turns. "same" is the share of pictures that it has not seen with the same largest
score, for networks with trained weights, and SQNR the signal over the difference of all scores.
"""

from __future__ import annotations

import argparse
import logging
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

import flatfold
from bench.precision import photographs
from flatfold.backends import Engine, load_backend
from flatfold.errors import FlatfoldError
from flatfold.system.host import processor, versions
from flatfold.timing import Estimate, interleaved_ratio, measure

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/measured/quantized.md"
TRAINED = "photographs, repvgg"
UNTRAINED = ("repvgg_a0", "mobileone_s0", "vanillanet_5", "fastvit_t8", "parnet_s")  # 224 x 224
TARGETS = ("ort-cpu", "openvino")
SEEN, HELD_OUT = 32, 16  # pictures of 224 x 224 to quantize by, and to compare on
PACKAGES = ("onnxruntime", "openvino", "nncf")
HEAD = ("network", "target", "tool", "ratio [95 %]", "same", "SQNR, dB", "layers on codes")


@dataclass(frozen=True)
class Network:
    """A model, pictures that tools see, and others that they do not."""

    name: str
    model: Any
    seen: np.ndarray
    held_out: np.ndarray

    @property
    def is_trained(self) -> bool:
        return self.name == TRAINED


@dataclass(frozen=True)
class Row:
    """What one tool makes of a network for one target, or why it makes nothing."""

    network: str
    target: str
    tool: str
    ratio: Estimate | None = None
    same: float | None = None
    decibels: float | None = None
    layers: str = ""
    failed: str = ""

    def cells(self) -> Iterator[str]:
        yield from (self.network, self.target, self.tool)
        if self.ratio is None or self.decibels is None:
            yield from (self.failed, "", "", "")
            return
        low, high = self.ratio.interval
        yield f"{self.ratio.value:.2f} [{low:.2f}, {high:.2f}]"
        yield "" if self.same is None else f"{self.same:.1%}"
        yield f"{self.decibels:.0f}"
        yield self.layers


def networks(match: str) -> Iterator[Network]:
    """The networks with `match` in their name."""
    if match in TRAINED:
        from examples.photographs import held_out, pieces, stored

        seen, _ = pieces(2 * SEEN, held_out=False, seed=2)
        pictures, _ = held_out()
        yield Network(TRAINED, stored(), seen.numpy(), pictures.numpy())
    for name in UNTRAINED:
        if match in name:
            pictures = photographs((224, 224), SEEN + HELD_OUT)
            yield Network(name, name, pictures[:SEEN], pictures[SEEN:])


def rows(network: Network, target: str, seconds: float) -> Iterator[Row]:
    """One row for each tool."""
    with _compiled(network, target, "fp32") as exact:
        graph = exact.model
        for tool, build in TOOLS.items():
            if tool == "flatfold bf16" and "bf16" not in load_backend(target).precisions:
                continue
            row = Row(network.name, target, tool)
            try:
                with build(network, target, graph) as engine:
                    yield _compared(row, network, exact, engine, seconds)
            except ModuleNotFoundError as why:
                yield replace(row, failed=f"not installed: pip install {why.name}")
            except FlatfoldError as why:
                yield replace(row, failed=why.cause)


def _compared(row: Row, network: Network, exact: Engine, engine: Engine, seconds: float) -> Row:
    """The row of an engine, timed beside that in float32, and its scores of all pictures."""
    one, two = (_scores(each, network.held_out) for each in (exact, engine))
    runs = {"it": _run_on(engine, network), "float32": _run_on(exact, network)}
    timings = measure(runs, budget_s=seconds, clock=time.process_time)
    noise = float(np.square(two - one).sum())
    rounded = engine.manifest.get("rounded") if "int8" in row.tool else None
    return replace(
        row,
        ratio=interleaved_ratio(timings["it"], timings["float32"]),
        same=float(np.mean(one.argmax(1) == two.argmax(1))) if network.is_trained else None,
        decibels=10 * math.log10(float(np.square(one).sum()) / noise) if noise else math.inf,
        layers=f"{rounded['nodes']} of {rounded['total']}"
        if rounded and "int8" in row.tool
        else "",
    )


def _compiled(network: Network, target: str, precision: str) -> Engine:
    return flatfold.compile(
        network.model,
        target=target,
        engine_options=_one_thread(target),
        precision=precision,
        calibration=None if precision == "fp32" else network.seen,
        input_shape=network.seen.shape[1:],
        verify="sample",
        tune=0,
        cache_dir="",
    )


def _one_thread(target: str) -> dict[str, object]:
    return {load_backend(target).threads: 1}


def _flatfold(precision: str) -> Callable[[Network, str, ir.Model], Engine]:
    return lambda network, target, graph: _compiled(network, target, precision)


def _onnxruntime(network: Network, target: str, graph: ir.Model) -> Engine:
    """Its static quantizer, by channel, with codes as it has them by default."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = iter(_feeds(network, graph))

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.left, None)

    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder) / "float.onnx", Path(folder) / "codes.onnx"
        ir.save(graph, before)
        quantize_static(before, after, Reader(), quant_format=QuantFormat.QDQ, per_channel=True)
        quantized = ir.load(after)
        for value in quantized.graph.initializers.values():
            if value.const_value is not None:
                value.const_value = ir.Tensor(value.const_value.numpy().copy(), name=value.name)
    return load_backend(target).build(quantized, _one_thread(target))


def _nncf(network: Network, target: str, graph: ir.Model) -> Engine:
    """Its quantizer of ONNX graphs with its own presets."""
    if find_spec("nncf") is None:
        raise ModuleNotFoundError("NNCF is not installed", name="nncf")
    import nncf  # type: ignore[import-not-found]

    model: onnx.ModelProto = ir.to_proto(graph)
    feeds = _feeds(network, graph)
    quantized = nncf.quantize(model, nncf.Dataset(feeds), subset_size=len(feeds))
    return load_backend(target).build(ir.from_proto(quantized), _one_thread(target))


TOOLS: dict[str, Callable[[Network, str, ir.Model], Engine]] = {
    "flatfold int8": _flatfold("int8"),
    "onnxruntime int8": _onnxruntime,
    "nncf int8": _nncf,
    "flatfold bf16": _flatfold("bf16"),
}


def _feeds(network: Network, graph: ir.Model) -> list[dict[str, np.ndarray]]:
    name = graph.graph.inputs[0].name or ""
    return [{name: picture[None]} for picture in network.seen]


def _scores(engine: Engine, pictures: np.ndarray) -> np.ndarray:
    name = engine.inputs[0].name
    found = [next(iter(engine.run({name: picture[None]}).values())) for picture in pictures]
    return np.concatenate(found).astype(np.float64)


def _run_on(engine: Engine, network: Network) -> Callable[[], object]:
    return engine.bind({engine.inputs[0].name: network.held_out[:1]})


def page(found: Sequence[Row]) -> str:
    """The page that `make quantized` writes."""
    lines = [
        "# In 8 bits and in bfloat16 beside float32",
        "",
        "Processor time over that of the graph that flatfold has rewritten in float32 on the same "
        "engine, one thread, in turns in one process; of a network with trained weights, the share "
        "of pictures with the same largest score; and the signal over the difference of all "
        "scores. Pictures to compare on are others than those to quantize by, which are the same "
        "for all tools. Networks of the zoo are not trained: their scores are nearly the same for "
        "all pictures, and biases that are corrected bring out that part, so their SQNR says less. "
        "`make quantized` measures again and writes this page.",
        "",
        f"{processor()}, {', '.join(f'{n} {v}' for n, v in versions(PACKAGES).items() if v)}",
        "",
        f"| {' | '.join(HEAD)} |",
        "|---" * len(HEAD) + "|",
        *(f"| {' | '.join(row.cells())} |" for row in found),
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(prog="quantized", description=__doc__.partition("\n")[0])
    parser.add_argument("--match", default="", help="part of a name")
    parser.add_argument("--seconds", type=float, default=10.0, help="of timing for each row")
    options = parser.parse_args()
    logging.disable(logging.WARNING)  # onnxruntime asks for what has been done
    found: list[Row] = []
    for network in networks(options.match):
        for target in TARGETS:
            for row in rows(network, target, options.seconds):
                found.append(row)
                print(*row.cells(), sep="  ", flush=True)
    if not options.match:
        PAGE.write_text(page(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
