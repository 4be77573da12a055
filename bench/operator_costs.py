"""Measure the figures of `passes/cost/model.py` on this machine: what each class of operator costs.

    .venv/bin/python bench/operator_costs.py                       every figure, and the profile's
    .venv/bin/python bench/operator_costs.py --class depthwise     one class only
    .venv/bin/python bench/operator_costs.py --target openvino     those of another target
    .venv/bin/python bench/operator_costs.py --json                for a program

A rate is derived from the time that remains after the profile's time for the node and its bytes:
with it, the cost model would be right for that case. The profile needs only round numbers in the
right ratio. `make costs` compares different forms of one function.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from operator_graphs import Chain, Timer, between_layers
from rich.console import Console
from rich.table import Table

from flatfold.passes.cost.model import (
    LANES,
    Cost,
    CostModel,
)
from flatfold.passes.cost.profiles import ORT_CPU, PROFILES, Profile
from flatfold.passes.stencil.geometry import Geometry

MAPS = ((64, 56), (128, 28), (512, 14), (1024, 7))
MOST_WEIGHTS = 3_000_000  # of one layer; chains of larger ones would no longer fit the cache
LEAST = 0.25  # a rate is given if multiplying takes at least this share of the time


@dataclass(frozen=True)
class Case:
    """An operator on a map [1, channels, size, size], or [1, size * size, channels] for MatMul."""

    figure: str
    kind: str
    channels: int
    size: int
    kernel: tuple[int, int] = (1, 1)
    groups: int = 1
    dilation: int = 1

    def __str__(self) -> str:
        window = "{}x{}".format(*self.kernel) if "Conv" in self.kind else ""
        dilation = f"dilation {self.dilation}" if self.dilation > 1 else ""
        wide = self.channels // self.groups
        groups = "" if self.groups == 1 else "depthwise" if wide == 1 else f"groups of {wide}"
        words = f"{self.kind} {window} {dilation} {groups}".split()
        return f"{' '.join(words)} on {self.channels}x{self.size}x{self.size}"

    @property
    def shape(self) -> tuple[int, ...]:
        c, s = self.channels, self.size
        return (1, s * s, c) if self.kind == "MatMul" else (1, c, s, s)

    @property
    def geometry(self) -> Geometry:
        axes = 0 if self.kind == "MatMul" else 2
        ones, dilations = (1,) * axes, (self.dilation,) * axes
        begin = tuple((k - 1) * self.dilation // 2 for k in self.kernel[:axes])
        up = (2, 2) if self.kind == "ConvTranspose" else ones
        c, kernel = self.channels, self.kernel[:axes]
        return Geometry(c, c, self.groups, kernel, ones, dilations, begin, begin, up)

    @property
    def is_layer(self) -> bool:
        return self.kind in ("Conv", "ConvTranspose", "MatMul")

    def estimate(self, profile: Profile) -> Cost:
        """The estimate of the cost model."""
        c, pixels = self.channels, self.size**2
        if self.figure == "copies":
            once = CostModel(profile).copy(c, pixels)
            return once if self.kind == "Gather" else once + once
        if self.kind == "GridSample":
            return CostModel(profile).sampler(c * pixels)
        if not self.is_layer:
            return CostModel(profile).elementwise(c, pixels, reads=2 if self.kind == "Add" else 1)
        out = pixels * (4 if self.kind == "ConvTranspose" else 1)
        return CostModel(profile).stencil(self.geometry, True, False, out)

    def implied_figure(self, seconds: float, profile: Profile) -> float | None:
        """The profile's figure that implies this time; None if the time does not determine it."""
        if self.figure == "node":
            return seconds
        estimate = self.estimate(profile)
        if not self.is_layer:
            overhead = estimate.nodes * profile.node
            moved = (estimate.seconds - overhead) * getattr(profile, self.figure)
            return moved / max(seconds - overhead, 1e-9)
        rate = CostModel(profile).rate(self.geometry)
        left = seconds - (estimate.seconds - estimate.macs / rate)
        if left < LEAST * seconds:
            return None
        share = getattr(profile, self.figure) if self.figure.startswith("dilated") else rate
        return estimate.macs / left / rate * share

    def add(self, chain: Chain, x: str) -> str:
        c = self.channels
        if self.kind == "Conv":
            return chain.conv(x, c, self.kernel, self.groups, dilation=self.dilation)
        if self.kind == "ConvTranspose":
            weight, half = chain.weight(c, c // self.groups, *self.kernel), self.kernel[0] // 2 - 1
            attributes = {"kernel_shape": self.kernel, "group": self.groups, "pads": [half] * 4}
            y = chain.op("ConvTranspose", x, weight, chain.weight(c), strides=[2, 2], **attributes)
            return chain.op("MaxPool", y, kernel_shape=[1, 1], strides=[2, 2])  # the size of x
        if self.kind == "Slice":
            halves = [chain.slice(x, 1, c // 2, c), chain.slice(x, 1, 0, c // 2)]
            return chain.op("Concat", *halves, axis=1)
        if self.kind == "Gather":
            return chain.op("Gather", x, chain.const(chain.random.permutation(c)), axis=1)
        if self.kind == "Pad":
            pads = chain.const([0, 0, 1, 0, 0, 0, 0, 0])
            return chain.slice(chain.op("Pad", x, pads), 2, 0, self.size)
        if self.kind == "GridSample":  # every pixel one to the right
            places = (2 * np.arange(self.size, dtype=np.float32) + 1) / self.size - 1
            y, x_ = np.meshgrid(places, places + 2 / self.size, indexing="ij")
            return chain.op("GridSample", x, chain.const(np.stack([x_, y], -1)[None]))
        second = {"MatMul": (c, c), "Mul": (c, 1, 1)}.get(self.kind)
        return chain.op(self.kind, x, chain.weight(*second) if second else "x")


def layers(channels: int, size: int) -> list[Case]:
    """Every class of layer on one map, except those that would take minutes."""
    c, conv, spread = channels, "Conv", "ConvTranspose"
    kernels = [(11, 1), (31, 1), (3, 3), (5, 5), (51, 5), (7, 7), (9, 9), (1, 11), (12, 12)]
    kernels += [(13, 13), (14, 14), (17, 17), (1, 31), (31, 31), (5, 51), (51, 51)]
    cases = [
        Case("pointwise", conv, c, size),
        Case("product", "MatMul", c, size),
        *(Case("dense", conv, c, size, (3, 3), c // wide) for wide in (c, LANES)),
        *(Case("thin", conv, c, size, (3, 3), c // wide) for wide in (2, 4, 8)),
        *(Case("depthwise", conv, c, size, kernel, c) for kernel in kernels),
        *(Case("dilated", conv, c, size, (3, 3), 1, d) for d in (2, 3)),
        *(Case("dilated_depthwise", conv, c, size, (k, k), c, 2) for k in (3, 5, 7)),
        *(Case("transposed", spread, c, size, (k, k)) for k in (2, 4)),
        *(Case("transposed_grouped", spread, c, size, (k, k), c) for k in (2, 4)),
    ]
    return [
        case
        for case in cases
        if case.estimate(ORT_CPU).parameters < MOST_WEIGHTS and max(case.kernel) <= 2 * size
    ]


CASES = [
    *(case for channels, size in MAPS for case in layers(channels, size)),
    *(Case("bandwidth", kind, *of) for kind in ("Mul", "Add") for of in MAPS),
    *(Case("copies", kind, *of) for kind in ("Gather", "Slice", "Pad") for of in MAPS),
    *(Case("samples", "GridSample", *of) for of in MAPS),
    *(Case("node", kind, 64, 1) for kind in ("Mul", "Add")),
]


def measured(cases: Sequence[Case], rounds: int, target: str) -> dict[Case, tuple[float, float]]:
    """(least, median) in seconds. Copies are timed between layers, as in a network."""
    steps = {}
    for case in cases:
        inside = case.figure == "copies"
        steps[str(case)] = case.shape, between_layers(case.add) if inside else case.add
        if inside:
            steps[str(case.shape)] = case.shape, between_layers(lambda _, x: x)
    took = Timer(target).seconds(steps, rounds)
    none = (0.0, 0.0)  # every other case has no layers around it
    rest = {case: took[str(case.shape)] if case.figure == "copies" else none for case in cases}
    return {
        case: (took[str(case)][0] - rest[case][0], took[str(case)][1] - rest[case][1])
        for case in cases
    }


def figures(
    times: Mapping[Case, tuple[float, float]], profile: Profile
) -> dict[str, tuple[float, float | None]]:
    """By name of the figure: (the value in the profile, the median of the measured values)."""
    measured_values: dict[str, list[float]] = {}
    stated: dict[str, float] = {}
    for case, (least, _) in times.items():
        name, wide = case.figure, case.figure == "depthwise"
        name = f"depthwise, {case.kernel[1]} wide" if wide else name
        stated[name] = CostModel(profile).rate(case.geometry) if wide else getattr(profile, name)
        figure = case.implied_figure(least, profile)
        measured_values.setdefault(name, []).extend([] if figure is None else [figure])
    return {
        name: (stated[name], statistics.median(values) if values else None)
        for name, values in measured_values.items()
    }


def figure_text(name: str, figure: float | None) -> str:
    if figure is None:
        return "-"
    if name == "node":
        return f"{figure * 1e6:.2f} us"
    if name.startswith("dilated"):
        return f"{figure:.2f}"
    units = {"bandwidth": "GB/s", "copies": "GB/s", "samples": "G/s"}
    return f"{figure / 1e9:.1f} {units.get(name, 'GMAC/s')}"


def tables(measured_times: Mapping[Case, tuple[float, float]], profile: Profile) -> list[Table]:
    cases = Table(title="Cases", title_justify="left")
    for column in ("operator", "least", "median", "cost model", "figure"):
        cases.add_column(column, justify="left" if column == "operator" else "right")
    for case, times in measured_times.items():
        shown = [f"{t * 1e6:.1f} us" for t in (*times, case.estimate(profile).seconds)]
        cases.add_row(
            str(case), *shown, figure_text(case.figure, case.implied_figure(times[0], profile))
        )
    figured = Table(title=f"Profile {profile.name}", title_justify="left")
    for column in ("figure", "in the profile", "measured", "ratio"):
        figured.add_column(column, justify="left" if column == "figure" else "right")
    for name, (expected, here) in figures(measured_times, profile).items():
        ratio = "-" if here is None else f"{here / expected:.2f}"
        figured.add_row(name, figure_text(name, expected), figure_text(name, here), ratio)
    return [cases, figured]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    names = sorted({case.figure for case in CASES})
    parser.add_argument("--class", dest="figure", choices=names, help="measure only this one")
    parser.add_argument("--target", default="ort-cpu", choices=("ort-cpu", "openvino"))
    parser.add_argument("--rounds", type=int, default=15, help="times that each chain runs")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    cases = [case for case in CASES if options.figure in (None, case.figure)]
    profile = PROFILES[options.target]
    times = measured(cases, options.rounds, options.target)
    if options.json:
        rows = [
            {"operator": str(case), **asdict(case), "least": least, "median": median}
            for case, (least, median) in times.items()
        ]
        print(json.dumps({"cases": rows, "figures": figures(times, profile)}, indent=1))
    else:
        Console(width=110).print(*tables(times, profile), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
