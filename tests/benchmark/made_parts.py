"""Parts of a made-up report: layers, places, blocks and decisions, with hostile names in each."""

from __future__ import annotations

import math

from flatfold.benchmark.report import (
    Block,
    Box,
    Decision,
    GraphChange,
    Layer,
    LayerChange,
    Profile,
    Sketch,
)

HOSTILE = "</script><img src=x onerror=alert(1)>\x1b[2J\u202e\"'`|*_"


def profile(name: str, seconds: float) -> Profile:
    ours = name.startswith("flatfold")
    layers = []
    for stage in range(22):
        place = f"stage{stage // 6}.{stage % 6}"
        share = seconds / 22 * (1 + math.sin(stage))
        if ours:
            layers.append(
                Layer(
                    f"{place}/conv",
                    "Conv",
                    share,
                    (f"{place}/conv",),
                    place,
                    "merge-branches",
                    share * 0.66,
                )
            )
            continue
        layers.append(
            Layer(f"{place}/square/conv", "Conv", share * 0.66, (), place, "", share * 0.5)
        )
        layers.append(
            Layer(f"{place}/point/conv", "Conv", share * 0.16, (), place, "", share * 0.05)
        )
        layers.append(Layer(f"{place}/norm", "BatchNormalization", share * 0.08, (), place))
        layers.append(Layer(f"{place}/add", "Add", share * 0.1, (), place))
    layers.append(Layer(HOSTILE, HOSTILE, seconds / 300, (HOSTILE,), HOSTILE))
    return Profile(name, seconds * 1.07, tuple(layers))


def moves() -> tuple[LayerChange, ...]:
    found = [
        LayerChange(
            "ort-cpu",
            f"stage{n // 6}.{n % 6}",
            0.0013,
            0.0013 - n * 2e-5,
            (f"{n}/square/conv", f"{n}/point/conv", f"{n}/norm", f"{n}/add", f"{n}/again"),
            (f"{n}/conv",),
        )
        for n in range(20)
    ]
    return (*found, LayerChange("ort-cpu", HOSTILE, 1e-4, 2e-4, (HOSTILE,), ()))


def changes(target: str) -> GraphChange:
    before = Sketch(
        (
            Box(("input", "96 x 28 x 28")),
            Box(("Conv 3x3", "96 → 96"), "layer"),
            Box(("BatchNorm", "96 channels"), "norm"),
            Box(("Conv 1x1", "96 → 96"), "layer"),
            Box(("BatchNorm", "96 channels"), "norm"),
            Box(("BatchNorm", "96 channels"), "norm"),
            Box(("Add",), "other"),
            Box(("Add",), "other"),
            Box(("Relu",), "other"),
            Box(("output", "96 x 28 x 28")),
        ),
        ((0, 1), (1, 2), (0, 3), (3, 4), (0, 5), (2, 6), (4, 6), (6, 7), (5, 7), (7, 8), (8, 9)),
    )
    after = Sketch(
        (
            Box(("input", "96 x 28 x 28")),
            Box(("Conv 3x3", "96 → 96, bias"), "layer"),
            Box(("Relu",), "other"),
            Box((HOSTILE,)),
        ),
        ((0, 1), (1, 2), (2, 3)),
    )
    large = Sketch(tuple(Box((f"Conv {n}",), "layer") for n in range(80)), ())
    circle = Sketch((Box(("Relu",), "other"),) * 2, ((0, 1), (1, 0)))
    places = tuple(f"stage{n // 6}.{n % 6}" for n in range(21))
    return GraphChange(
        target,
        {"BatchNormalization": 61, "Add": 44, "Conv": 44, "Relu": 22, "Gemm": 1, HOSTILE: 1},
        {"Conv": 22, "Relu": 22, "Gemm": 1, "Slice": 1},
        (
            Block("merge-branches", places, before, after),
            Block("compose-convs", ("head",), large, after),
            Block(HOSTILE, (HOSTILE,), circle, Sketch()),
        ),
        (
            Decision("merge-branches", True, "", "3 branches become one Conv", "", places),
            Decision(
                "compose-convs",
                False,
                "COST",
                "it would take 9.0 times the multiplies",
                "keep it",
                places[:3],
            ),
            Decision(HOSTILE, False, HOSTILE, HOSTILE, HOSTILE, (HOSTILE,)),
        ),
    )
