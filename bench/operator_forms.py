"""Time the forms that one function can be written in, in ONNX Runtime on this CPU.

    .venv/bin/python bench/operator_forms.py

Which form is fastest depends on the target. "alone" is the time in a chain of this form only,
"between layers" the time that it adds between two convolutions: ONNX Runtime converts to the plain
layout and back around an operator that does not support its blocked layout.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping

import numpy as np
from operator_graphs import Chain, Step, Timer, between_layers
from rich.console import Console
from rich.table import Table

MAPS = ((64, 56), (128, 28), (512, 14))


def batchnorm(chain: Chain, x: str) -> str:
    channels = chain.shape[1]
    parts = [chain.weight(channels) for _ in range(3)]
    return chain.op("BatchNormalization", x, *parts, chain.const(np.ones(channels, np.float32)))


def scale(chain: Chain, x: str) -> str:
    return chain.op("Mul", x, chain.weight(chain.shape[1], 1, 1))


def offset(chain: Chain, x: str) -> str:
    return chain.op("Add", x, chain.weight(chain.shape[1], 1, 1))


def scale_and_offset(chain: Chain, x: str) -> str:
    return offset(chain, scale(chain, x))


def depthwise(chain: Chain, x: str) -> str:
    return chain.conv(x, chain.shape[1], (1, 1), chain.shape[1])


def pad_slice(chain: Chain, x: str) -> str:
    """Down and right by one pixel."""
    padded = chain.op("Pad", x, chain.const([0, 0, 1, 1, 0, 0, 0, 0]))
    ends = [chain.const(n) for n in ([0, 0], list(chain.shape[2:]), [2, 3])]
    return chain.op("Slice", padded, *ends)


def crop_pad(chain: Chain, x: str) -> str:
    return chain.op("Pad", x, chain.const([0, 0, 1, 1, 0, 0, -1, -1]))


def slice_concat(chain: Chain, x: str) -> str:
    for axis in (2, 3):
        shape = list(chain.shape)
        kept = chain.slice(x, axis, 0, shape[axis] - 1)
        shape[axis] = 1
        x = chain.op("Concat", chain.const(np.zeros(shape, np.float32)), kept, axis=axis)
    return x


def one_hot(chain: Chain, x: str, size: int, before: int, after: int) -> str:
    channels = chain.shape[1]
    weight = np.zeros((channels, 1, size, size), np.float32)
    weight[:, :, 0, 0] = 1
    pads = [before, before, after, after]
    return chain.op("Conv", x, chain.const(weight), group=channels, pads=pads)


def gather(chain: Chain, x: str) -> str:
    return chain.op("Gather", x, chain.const(chain.random.permutation(chain.shape[1])), axis=1)


def halves(chain: Chain, x: str) -> str:
    """The halves of the channels exchanged: a permutation that Slice can write."""
    channels = chain.shape[1]
    parts = [chain.slice(x, 1, channels // 2, channels), chain.slice(x, 1, 0, channels // 2)]
    return chain.op("Concat", *parts, axis=1)


def permutation(chain: Chain, x: str) -> str:
    matrix = np.eye(chain.shape[1], dtype=np.float32)[chain.random.permutation(chain.shape[1])]
    return chain.op("Conv", x, chain.const(matrix[:, :, None, None]))


def shuffle(chain: Chain, x: str) -> str:
    batch, channels, *sizes = chain.shape
    split = chain.op("Reshape", x, chain.const([batch, 2, channels // 2, *sizes]))
    turned = chain.op("Transpose", split, perm=[0, 2, 1, 3, 4])
    return chain.op("Reshape", turned, chain.const(chain.shape))


def layernorm(chain: Chain, x: str, biased: bool) -> str:
    """Along the last axis, whose size is what counts."""
    parts = [chain.weight(chain.shape[-1]) for _ in range(1 + biased)]
    return chain.op("LayerNormalization", x, *parts, axis=-1)


def spelled_out(chain: Chain, x: str) -> str:
    three, zero, six = (chain.const(np.array(n, np.float32)) for n in (3, 0, 6))
    gate = chain.op("Clip", chain.op("Add", x, three), zero, six)
    return chain.op("Div", chain.op("Mul", x, gate), six)


def by_hard_sigmoid(chain: Chain, x: str) -> str:
    return chain.op("Mul", x, chain.op("HardSigmoid", x, alpha=1 / 6, beta=0.5))


FORMS: Mapping[str, Mapping[str, Step]] = {
    "a scale per channel": {"Mul": scale, "depthwise 1x1 Conv": depthwise},
    "a scale and an offset per channel": {
        "BatchNormalization": batchnorm,
        "Mul, Add": scale_and_offset,
        "depthwise 1x1 Conv with bias": depthwise,
    },
    "an offset per channel": {"Add": offset, "depthwise 1x1 Conv with bias": depthwise},
    "a shift by one pixel on both axes": {
        "Pad, Slice": pad_slice,
        "Pad with negative pads": crop_pad,
        "Slice, Concat, twice": slice_concat,
        "one-hot depthwise 3x3": lambda chain, x: one_hot(chain, x, 3, 1, 1),
        "one-hot depthwise 2x2": lambda chain, x: one_hot(chain, x, 2, 1, 0),
    },
    "a permutation of the channels": {
        "Gather": gather,
        "Slice, Slice, Concat": halves,
        "Reshape, Transpose, Reshape": shuffle,
        "1x1 Conv": permutation,
    },
    "HardSwish": {
        "Add, Clip, Mul, Div": spelled_out,
        "HardSigmoid, Mul": by_hard_sigmoid,
        "HardSwish": lambda chain, x: chain.op("HardSwish", x),
    },
    "LayerNormalization": {
        "with bias": lambda chain, x: layernorm(chain, x, True),
        "without": lambda chain, x: layernorm(chain, x, False),
    },
}


ALONE, BETWEEN = "alone", "between layers"


def measured(rounds: int) -> list[dict[str, object]]:
    """One row for each form and map: the least microseconds alone and between layers."""
    maps = [(1, channels, size, size) for channels, size in MAPS]
    around = between_layers(lambda _, x: x)
    steps = {str(shape): (shape, around) for shape in maps}
    forms = [(what, form, step) for what, known in FORMS.items() for form, step in known.items()]
    for shape in maps:
        for what, form, step in forms:
            steps[f"{what}/{form}/{shape}/{ALONE}"] = shape, step
            steps[f"{what}/{form}/{shape}/{BETWEEN}"] = shape, between_layers(step)
    took = {name: least * 1e6 for name, (least, _) in Timer().seconds(steps, rounds).items()}
    return [
        {
            "function": what,
            "form": form,
            "map": "x".join(map(str, shape[1:])),
            ALONE: took[f"{what}/{form}/{shape}/{ALONE}"],
            BETWEEN: took[f"{what}/{form}/{shape}/{BETWEEN}"] - took[str(shape)],
        }
        for what, form, _ in forms
        for shape in maps
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=20, help="times that each chain runs")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    rows = measured(options.rounds)
    if options.json:
        print(json.dumps(rows, indent=1))
        return 0
    table = Table(title="Forms of one function, in microseconds", title_justify="left")
    for column in ("function", "form", "map", ALONE, BETWEEN):
        table.add_column(column, justify="left" if column in ("function", "form") else "right")
    for row in rows:
        table.add_row(*(f"{v:.1f}" if isinstance(v, float) else str(v) for v in row.values()))
    Console(width=110).print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
