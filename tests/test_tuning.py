"""No engine is slower than the model as it came; what is taken back, and what is kept, by time.

Which times are measured is up to the machine, so decisions are tested on given ones, and the
timing on real engines only for what does not depend on them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir
import pytest

import flatfold
from flatfold import tuning
from flatfold.backends.onnxruntime.cpu import OrtCpu
from flatfold.compiler import Compiler, Options
from flatfold.errors import InputError
from flatfold.sources import resolve
from flatfold.timing import Timing
from flatfold.tuning import Candidate, Stopwatch, Variant
from tests.nets import Net, run

ONE_THREAD = {"intra_threads": 1, "spinning": False}

Seconds = Callable[[Counter], float]


def two_stages():
    """A BatchNormalization behind a Conv, and two branches that are one Conv."""
    net = Net((1, 8, 14, 14), dtype=np.float32)
    y = net.op("Relu", net.bn(net.conv(net.x, 8, 8, (3, 3)), 8))
    branches = [net.conv(y, 8, 8, (k, k), False) for k in (3, 1)]
    return net.model(net.op("Relu", net.op("Add", *branches)))


def operators(model: ir.Model) -> Counter:
    return Counter(node.op_type for node in model.graph)


@pytest.fixture
def given_times(monkeypatch: pytest.MonkeyPatch) -> Callable[[Seconds], None]:
    """Sets the time of a graph by its operators, with 1 % of noise."""

    def set_times(seconds: Seconds) -> None:
        def times(watch: Stopwatch, candidates: Sequence[Candidate], budget_s: float):
            rng = np.random.default_rng(0)
            return [
                Timing(tuple(seconds(operators(c.graph)) * rng.normal(1, 0.01, 40)))
                for c in candidates
            ]

        monkeypatch.setattr(Stopwatch, "times", times)

    return set_times


def compiled(**options):
    return Compiler.resolve(two_stages()).compile(
        [Options("ort-cpu", engine_options=ONE_THREAD, **options)], cache_dir=""
    )


def test_what_is_no_slower_stays_and_its_manifest_has_no_times(given_times):
    given_times(lambda ops: 1.0)
    done = compiled()
    assert operators(done.engine.model) == {"Conv": 2, "Relu": 2}
    assert done.engine.manifest["tuning"] == tuning.Tuned().to_dict()
    assert done.engine.manifest["tuning"]["faster"] is None
    done.engine.close()


@pytest.mark.parametrize(("seconds", "said"), [(0.6, "is not slower"), (1.3, "takes 1.3")])
def test_a_precision_stays_as_asked_for_and_how_much_slower_it_is_is_said(seconds, said):
    """The typed graph has Casts, the one in float32 has none."""
    result = flatfold.optimize(two_stages(), precision="fp16", verify="off")
    assert "Cast" in operators(result.graph) and "Cast" not in operators(result.float_graph)

    def times(candidates: Sequence[Candidate], budget_s: float) -> list[Timing]:
        rng = np.random.default_rng(0)
        typed = [operators(candidate.graph)["Cast"] > 0 for candidate in candidates]
        assert sorted(typed) == [False, True]
        return [Timing(tuple((seconds if n else 1) * rng.normal(1, 0.01, 40))) for n in typed]

    tuner = tuning.Tuner(None, times, result.float_graph)
    tuned = tuner.beside(Candidate(Variant(), "", result.graph), "fp16")
    assert tuned.variant == Variant() and tuned.tried == ()
    assert tuned.reason.startswith("fp16") and said in tuned.reason and "fp32" in tuned.reason
    assert tuned.reason in tuning.described(tuned.to_dict())


def test_a_slower_rewrite_is_taken_back_and_the_others_stay(given_times):
    given_times(lambda ops: 2.0 - ops["Add"] + 0.1 * ops["BatchNormalization"])
    done = compiled()
    assert operators(done.engine.model) == {"Conv": 3, "Add": 1, "Relu": 2}
    record = done.engine.manifest["tuning"]
    assert record["reason"] == "slower than the graph as it came"
    kept = [tried["change"] for tried in record["tried"] if tried["kept"]]
    assert kept == ["merge-branches taken back"]
    assert record["faster"]["value"] == pytest.approx(1.1, rel=0.02)
    told = [r for r in done.result.remarks if r.code == "SLOWER"]
    assert [(r.rewrite, r.applied) for r in told] == [("merge-branches", False)]
    assert done.result.equivalence.verdict == "certified"
    assert "merge-branches taken back" in tuning.described(record)
    done.engine.close()


def test_of_one_rewrite_only_what_is_slower_is_taken_back():
    """Of two merges that of 16 channels is made slow; the other one stays."""
    net = Net((1, 8, 14, 14), dtype=np.float32)
    y, inputs = net.x, 8
    for width, outputs in ((3, 8), (5, 16)):
        branches = [net.conv(y, outputs, inputs, (k, k), False) for k in (width, 1)]
        y, inputs = net.op("Relu", net.op("Add", *branches)), outputs
    compiler = Compiler.resolve(net.model(y))

    def pointwise(graph: ir.Model) -> list[int]:
        """Outputs of the branches of one tap, which are there until they are merged."""
        weights = [node.inputs[1].shape for node in graph.graph if node.op_type == "Conv"]
        return [shape[0] for shape in weights if shape[2] == 1]

    def times(candidates: Sequence[Candidate], budget_s: float) -> list[Timing]:
        rng = np.random.default_rng(0)
        apart = [pointwise(candidate.graph) for candidate in candidates]
        seconds = [2.0 - 0.5 * (16 in branches) + 0.2 * (8 in branches) for branches in apart]
        return [Timing(tuple(each * rng.normal(1, 0.01, 40))) for each in seconds]

    def write(variant: Variant):
        graph, _, remarks = compiler.rewrite(Options("ort-cpu", variant=variant))
        return graph, remarks

    tuner = tuning.Tuner(write, times, compiler.source.model)
    found = tuner.search(Candidate(tuning.ESTIMATED, "", *write(tuning.ESTIMATED)), 60.0)
    assert len(found.variant.taken_back) == 1 and not found.variant.without
    graph, remarks = write(found.variant)
    assert pointwise(graph) == [16]
    assert {r.code for r in remarks if not r.applied and r.rewrite == "merge-branches"} == {
        "SLOWER"
    }


def test_the_last_resort_is_the_model_as_it_came(given_times):
    """Even without rewrites it is slower here: only an Identity makes it fast."""
    net = Net((1, 8, 14, 14), dtype=np.float32)
    model = net.model(net.op("Relu", net.op("Identity", net.bn(net.conv(net.x, 8, 8, (3, 3)), 8))))
    given_times(lambda ops: 2.0 - ops["Identity"])
    compiler = Compiler.resolve(model)
    done = compiler.compile([Options("ort-cpu", engine_options=ONE_THREAD)], cache_dir="")
    assert operators(done.engine.model) == operators(resolve(model).model)
    record = done.engine.manifest["tuning"]
    assert record["variant"]["given"] and record["tried"][-1]["kept"]
    assert done.result.equivalence.verdict == "identical"
    assert [(r.code, r.applied) for r in done.result.remarks] == [("SLOWER", False)]
    x = np.random.default_rng(0).standard_normal((1, 8, 14, 14)).astype(np.float32)
    (expected,) = run(model, x)
    np.testing.assert_allclose(done.engine(x), expected, rtol=1e-5, atol=1e-5)
    done.engine.close()


def test_a_difference_that_is_not_found_twice_takes_nothing_back():
    compiler = Compiler.resolve(two_stages())
    result = compiler.optimize(Options("ort-cpu", verify="off"))
    calls = []

    def times(candidates: Sequence[Candidate], budget_s: float) -> list[Timing]:
        calls.append(1)
        slow = 1.5 if len(calls) == 1 else 1.0
        noise = np.random.default_rng(0).normal(1, 0.001, 40)
        return [Timing(tuple(factor * noise)) for factor in (1.0, slow)]

    tuner = tuning.Tuner(lambda variant: pytest.fail("rewritten"), times, compiler.source.model)
    assert tuner.check(Candidate(tuning.ESTIMATED, "", result.graph)) == tuning.Tuned()
    assert len(calls) == 2


@pytest.mark.parametrize("scale, taken_back", [(1e-3, True), (1e-6, False)])
def test_a_difference_of_less_than_a_call_takes_nothing_back(given_times, scale, taken_back):
    given_times(lambda ops: scale * (3.0 - ops["Add"]))
    done = compiled()
    assert bool(operators(done.engine.model)["Add"]) is taken_back
    done.engine.close()


def test_tuning_keeps_what_is_faster_of_forms_and_options(given_times, monkeypatch):
    """Two threads are twice as fast here, and so is each branch on its own."""

    def times(watch: Stopwatch, candidates: Sequence[Candidate], budget_s: float):
        rng = np.random.default_rng(0)
        return [
            Timing(
                tuple(
                    (2.0 - 0.5 * operators(c.graph)["Add"])
                    / dict(c.variant.engine_options).get("intra_threads", 1)
                    * rng.normal(1, 0.01, 40)
                )
            )
            for c in candidates
        ]

    monkeypatch.setattr(Stopwatch, "times", times)
    monkeypatch.setattr(OrtCpu, "choices", lambda self: {"intra_threads": (1, 2)})
    compiler = Compiler.resolve(two_stages())
    done = compiler.compile([Options("ort-cpu", tune=60.0)], cache_dir="")
    assert operators(done.engine.model)["Add"] == 1
    assert done.engine.describe()["options"]["intra_threads"] == 2
    assert done.result.equivalence.verdict == "certified"
    assert done.engine.manifest["tuning"]["reason"] == "tuned for 60 s"
    done.engine.close()


def test_options_that_were_asked_for_are_not_tuned(given_times, monkeypatch):
    seen = set()

    def times(watch: Stopwatch, candidates: Sequence[Candidate], budget_s: float):
        seen.update(name for c in candidates for name, _ in c.variant.engine_options)
        noise = np.random.default_rng(0).normal(1, 0.001, 40)
        return [Timing(tuple(noise)) for _ in candidates]

    monkeypatch.setattr(Stopwatch, "times", times)
    compiled(tune=60.0).engine.close()
    assert seen == {"graph_optimization"}


def test_engines_take_turns_and_a_long_run_is_not_timed(monkeypatch):
    model = resolve(two_stages()).model
    feeds = {"x": np.ones((1, 8, 14, 14), np.float32)}
    watch = Stopwatch(OrtCpu(), ONE_THREAD, feeds)
    one, two = watch.times([Candidate(tuning.GIVEN, "", model)] * 2, 0.05)
    assert len(one.samples) == len(two.samples) >= 8 and min(one.samples + two.samples) > 0
    monkeypatch.setattr(tuning, "MOST_S", 0.0)
    with pytest.raises(InputError, match="one run takes"):
        watch.times([Candidate(tuning.GIVEN, "", model)], 0.05)
    done = compiled()
    assert done.engine.manifest["tuning"]["reason"].startswith("not timed: one run takes")
    done.engine.close()


def test_without_tuning_nothing_runs(monkeypatch):
    monkeypatch.setattr(Stopwatch, "times", lambda *_: pytest.fail("timed"))
    compiled(tune=0).engine.close()
    with pytest.raises(InputError, match="0 or more seconds"):
        flatfold.compile(two_stages(), "ort-cpu", tune=-1)
