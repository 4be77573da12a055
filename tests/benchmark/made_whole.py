"""A report with every part filled, names that try to act on whoever reads them among them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from flatfold import timing
from flatfold.benchmark.report import Limit, ModelReport, Pair, Report, Row, StepReport
from flatfold.proof import Equivalence
from tests.benchmark.made import RIGHT, WRONG
from tests.benchmark.made_parts import HOSTILE, changes, moves, profile

PROCESSES, BLOCKS, RUNS = 6, 8, 12
TRAINING_MACS, OUR_MACS = 1_520_000_000, 1_360_000_000
# Seconds by target and variant; those of torch have no target of their own.
TIMES = {
    "ort-cpu": {
        "training": 0.0286,
        "onnxsim": 0.0259,
        "onnxslim": 0.0262,
        "onnxscript": 0.0264,
        "flatfold": 0.0217,
    },
    "openvino": {"training": 0.0201, "onnxsim": 0.0188, "onnxslim": 0.0201, "flatfold": 0.0186},
    "torch": {"eager": 0.0492, "torch.compile": 0.0331},
}


def whole(name: str = "repvgg_a0", seed: int = 0) -> Report:
    """Two targets, torch, a row that is wrong and one that failed."""
    rows = [row(v, t, s, seed) for t, found in TIMES.items() for v, s in found.items()]
    rows.append(replace(row("faulty", "ort-cpu", 0.011, seed), equivalence=WRONG))
    rows.append(Row(HOSTILE, "ort-cpu", reason=f"its process was ended by {HOSTILE}"))
    reference = rows[0]
    again = row("training", "ort-cpu", 0.0286, seed + 1)
    noise = timing.ratio(reference.samples_s, again.samples_s)
    assert noise is not None
    model = ModelReport(
        name,
        {"image": (1, 3, 224, 224)},
        reference.name,
        tuple(rows),
        tuple(pairs(rows, noise.deviation)),
        noise,
        PROCESSES,
        True,
        ("other work kept 0.4 of 2 cores busy when it began: measure again", HOSTILE),
        steps(seed),
        tuple(row(f"step {n}", "ort-cpu", s, seed) for n, s in enumerate((0.0286, 0.0253, 0.0217))),
        (profile("training ort-cpu", 0.0286), profile("flatfold ort-cpu", 0.0217)),
        moves(),
        (changes("ort-cpu"), changes("openvino")),
    )
    limits = (Limit("ort-cpu", 186e9, 21.4e9), Limit("openvino", 186e9, 21.4e9))
    options = {"rounds": PROCESSES, "delta": 0.02, "against": None}
    return Report((model,), environment(), options, limits)


def row(variant: str, target: str, seconds: float, seed: int = 0) -> Row:
    """Times with some spread, drawn from a fixed seed."""
    drawn = np.random.default_rng([seed, *map(ord, f"{variant} {target}")])
    shift = drawn.normal(0, 0.003, (PROCESSES, 1, 1)) + drawn.normal(0, 0.002, (1, BLOCKS, 1))
    spread = np.abs(drawn.standard_t(3, (PROCESSES, BLOCKS, RUNS))) * 0.008
    samples = seconds * np.exp(shift + spread - 0.006)
    ours = variant == "flatfold"
    graph = target != "torch"
    return Row(
        variant,
        target,
        precision="fp32",
        equivalence=Equivalence("sampled", 5.85e-7, 4e-7, 3.45e-6, inputs=("normal",) * 3)
        if graph
        else RIGHT,
        proof="certified" if ours else "",
        samples_s=tuple(tuple(tuple(map(float, b)) for b in p) for p in samples),
        build_s=(0.51, 0.53, 0.52),
        first_call_s=(3 * seconds,) * 3,
        prepare_s=2.4 if ours else None,
        layers=(25 if ours else 51) if graph else None,
        nodes=47 if ours else 174,
        parameters=8_309_384 if ours else 9_108_968,
        macs=OUR_MACS if ours else TRAINING_MACS,
        bytes=61_000_000 if ours else 118_000_000,
        floor_s=0.0146 if ours else 0.0163,
    )


def pairs(rows: list[Row], noise: float) -> list[Pair]:
    found = []
    for one in rows:
        for other in rows:
            home = "ort-cpu" if one.target == "torch" else one.target
            base = other.variant == "training" and other.target == home
            ours = one.variant == "flatfold" and other.target in (one.target, "torch")
            wanted = (base and one.variant != "training") or (ours and one is not other)
            ratio = timing.ratio(one.samples_s, other.samples_s) if wanted else None
            if ratio is not None and not one.wrong and not other.wrong:
                word = timing.verdict(ratio, noise=noise, delta=0.02)
                found.append(Pair(one.name, other.name, ratio, word))
    return found


def steps(seed: int) -> tuple[StepReport, ...]:
    first, second, last = (
        row(f"step {n}", "ort-cpu", s, seed) for n, s in enumerate((0.0286, 0.0253, 0.0217))
    )
    one = timing.ratio(second.samples_s, first.samples_s)
    two = timing.ratio(last.samples_s, second.samples_s)
    return (
        StepReport("ort-cpu", "", 0, 174, 9_108_968, TRAINING_MACS, 118_000_000, first.name),
        StepReport(
            "ort-cpu",
            "fold-batchnorm",
            61,
            113,
            9_087_000,
            TRAINING_MACS,
            96_000_000,
            second.name,
            one,
            "faster",
        ),
        StepReport("ort-cpu", "collapse-activations", 0, 113, 9_087_000, TRAINING_MACS, 96_000_000),
        StepReport(
            "ort-cpu",
            "merge-branches",
            22,
            47,
            8_309_384,
            OUR_MACS,
            61_000_000,
            last.name,
            two,
            "faster",
        ),
    )


def environment() -> dict[str, object]:
    return {
        "processor": "AMD EPYC 9B14",
        "system": f"Linux {HOSTILE}",
        "cores": 2,
        "threads": 2,
        "affinity": [0, 1],
        "governor": [],
        "before": {"busy_cores": 0.4, "load_average": [0.6, 0.5, 0.4], "throttled": None},
        "after": {"busy_cores": 0.1, "load_average": [2.0, 1.5, 0.9], "throttled": None},
        "versions": {"flatfold": "0.1.0", "onnxruntime": "1.31.1", "torch": "2.13.0"},
        "command": f"flatfold compare repvgg_a0 --json 'a {HOSTILE}.json'",
        "date": "2026-08-20T10:00:00+00:00",
    }
