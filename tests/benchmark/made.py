"""A report made up of times that are known, for what is drawn of it and judged by it."""

from __future__ import annotations

from flatfold import timing
from flatfold.benchmark.measure.protocol import Plan
from flatfold.benchmark.report import ModelReport, Pair, Report, Row
from flatfold.proof import Equivalence

QUICK = Plan(rounds=6, most_rounds=6, blocks=2, block_s=0.005, round_s=0, warm_s=0.1)
RIGHT = Equivalence("sampled", 1e-7, 1e-7, 1e-6, inputs=("normal",), reference="the module")
WRONG = Equivalence("refuted", 0.5, 1e-7, 1e-6, "normal", ("normal",), "the module")


def row(variant: str, seconds: float, equivalence: Equivalence = RIGHT, **facts: object) -> Row:
    """Six processes of two blocks of 20 runs, all of which take that long."""
    return Row(
        variant,
        "ort-cpu",
        precision="fp32",
        equivalence=equivalence,
        samples_s=(((seconds,) * 20,) * 2,) * 6,
        build_s=(0.5,) * 6,
        first_call_s=(3 * seconds,) * 6,
        **facts,  # type: ignore[arg-type]
    )


def report(ours: float = 0.02, name: str = "net") -> Report:
    """flatfold takes so many seconds, the training graph 0.04; onnxsim is wrong, eager is not run.

    `name` is that of the model.
    """
    rows = (
        row("training", 0.04, nodes=168, macs=1_520_000_000),
        row("onnxsim", 0.01, WRONG),
        row("onnxslim", 0.04),
        Row("eager", "torch", reason="its process was ended by SIGSEGV"),
        row("flatfold", ours, nodes=47, macs=1_360_000_000, proof="certified"),
    )
    known = {row.name: row for row in rows}
    wanted = [("onnxslim", "training"), ("flatfold", "training"), ("flatfold", "onnxslim")]
    pairs = []
    for one, other in wanted:
        a, b = known[f"{one} ort-cpu"], known[f"{other} ort-cpu"]
        ratio = timing.ratio(a.samples_s, b.samples_s)
        assert ratio is not None
        word = timing.verdict(ratio, noise=0.0, delta=0.02)
        pairs.append(Pair(a.name, b.name, ratio, word))
    noise = timing.ratio(rows[0].samples_s, rows[0].samples_s)
    model = ModelReport(
        name, {"image": (1, 3, 8, 8)}, rows[0].name, rows, tuple(pairs), noise, 6, True, ("a note",)
    )
    return Report((model,), {"processor": "a processor", "threads": 2, "affinity": [0, 1]}, {})
