"""How often `flatfold compare` is right where the answer is known, with real engines here.

    python -m bench.verdicts [--repeats 20] [--model repvgg_a0] [--size 64] [--budget 300]
                             [--threads 2]

Each repeat measures one graph three times on ort-cpu: unchanged, unchanged again, and slowed down
by a tenth. The first two should be the same, the third slower. "inconclusive" is counted
separately: it is no wrong answer, but no answer. On cores shared with other programs, one thread is
disturbed less than two, because a run waits for the slower one.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from flatfold import timing
from flatfold.backends import random_feeds, shapes_of, specs_of
from flatfold.backends.store import write_model
from flatfold.benchmark.checks import AGAIN
from flatfold.benchmark.machine import machine
from flatfold.benchmark.measure import arrays, process
from flatfold.benchmark.measure.job import Job
from flatfold.benchmark.measure.process import Process
from flatfold.benchmark.measure.protocol import Plan, Record, measure
from flatfold.sources import resolve

process.MODULE = "bench.slow_worker"
BASE, SAME, SLOWED = "training", "identical", "slowed"
WANTED = {SAME: "same", SLOWED: "slower"}


def verdicts(records: Mapping[str, Record], plan: Plan) -> dict[str, str]:
    """The verdict on each variant, compared with the unchanged graph."""
    noise = timing.ratio(records[BASE].samples, records[BASE + AGAIN].samples)
    reach = 0.0 if noise is None else noise.deviation
    words = {}
    for name in WANTED:
        ratio = timing.ratio(records[name].samples, records[BASE].samples)
        known = ratio is not None
        words[name] = timing.verdict(ratio, noise=reach, delta=plan.delta) if known else "none"
    return words


def undecided(records: Mapping[str, Record], plan: Plan) -> set[str]:
    """As in `flatfold compare`, which stops at any answer and not at the right one."""
    words = verdicts(records, plan)
    still = {name for name, word in words.items() if word == timing.INCONCLUSIVE}
    return still | {BASE, BASE + AGAIN} if still else still


def launchers(
    folder: Path, model: str, size: int, threads: int
) -> dict[str, Callable[[], Process]]:
    """The same engine under each name."""
    source = resolve(model, input_shape=(1, 3, size, size))
    write_model(source.model, folder / "model.onnx")
    specs = specs_of(v for v in source.model.graph.inputs if not v.is_initializer())
    arrays.store(folder / "feeds.npz", random_feeds(specs, shapes_of(specs, None, None)))
    job = Job(
        BASE,
        "ort-cpu",
        threads,
        tuple(machine.cores_for(threads)),
        feeds=str(folder / "feeds.npz"),
        model=str(folder / "model.onnx"),
        options={"intra_threads": threads},
        saved=str(folder / "saved"),
    )
    names = (BASE, SAME, SLOWED, BASE + AGAIN)
    jobs = {name: replace(job, variant=name) for name in names}
    return {name: lambda job=job: Process(job, folder) for name, job in jobs.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--model", default="repvgg_a0")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--budget", type=float, default=Plan.budget_s, help="seconds for each")
    parser.add_argument("--threads", type=int, default=machine.default_threads())
    asked = parser.parse_args()
    plan = Plan(budget_s=asked.budget)
    counters: dict[str, Counter[str]] = {name: Counter() for name in WANTED}
    with tempfile.TemporaryDirectory() as name:
        launch = launchers(Path(name), asked.model, asked.size, asked.threads)
        for repeat in range(1, asked.repeats + 1):
            done = measure(launch, partial(undecided, plan=plan), plan)
            for variant, word in verdicts(done.records, plan).items():
                counters[variant][word] += 1
            counts = "; ".join(f"{variant}: {dict(words)}" for variant, words in counters.items())
            print(f"{repeat} of {asked.repeats}: {counts}", flush=True)


if __name__ == "__main__":
    main()
