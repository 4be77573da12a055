"""The order of the blocks, when it ends, and what becomes of a variant that fails."""

from __future__ import annotations

import pytest

from flatfold import timing
from flatfold.benchmark.measure.protocol import MOST_RUNS, Plan, Started, measure
from flatfold.errors import InputError, TargetError
from tests.benchmark.simulated import Machine, Program, simulate


class Noted(Program):
    """A program that writes down when it does what, and may fail at some point."""

    def __init__(self, name: str, log: list[str], fails: str = "", seconds: float = 0.05) -> None:
        super().__init__(Machine(0), seconds)
        self.name, self.log, self.fails = name, log, fails

    def note(self, what: str) -> None:
        self.log.append(f"{what} {self.name}")
        if what == self.fails:
            raise TargetError(f"{what} went wrong")

    def start(self) -> Started:
        self.note("start")
        return super().start()

    def block(self, runs: int) -> list[float]:
        self.note("block")
        assert 1 <= runs <= MOST_RUNS
        return super().block(runs)

    def close(self) -> None:
        self.note("close")


def test_blocks_go_there_and_back_in_an_order_that_turns() -> None:
    log: list[str] = []
    launch = {name: (lambda name=name: Noted(name, log)) for name in "abc"}
    measure(launch, lambda _: (), Plan(blocks=2, round_s=0))
    rounds = "\n".join(log).split("start ")
    assert [part[0] for part in rounds[1:]] == list("abccbabcaacbcabbac")
    blocks = [entry[-1] for entry in log if entry.startswith("block")]
    assert "".join(blocks) == "abccbacbaabcbcaacbacbbcacabbacbaccab"
    assert sum(entry.startswith("close") for entry in log) == 18


def test_it_goes_on_until_decided() -> None:
    asked = []

    def undecided(_: object) -> set[str]:
        asked.append(1)
        return {"a"} if len(asked) < 3 else set()

    launch = {"a": Machine(0).launcher(0.01)}
    done = measure(launch, undecided, Plan(blocks=2, round_s=0))
    assert (done.rounds, done.decided) == (10, True)


def test_it_ends_when_the_budget_is_spent_but_not_before_the_least_rounds() -> None:
    machine = Machine(0)
    launch = {"a": machine.launcher(1.0)}
    plan = Plan(blocks=2, budget_s=1.0)
    done = measure(launch, lambda _: {"a"}, plan, clock=lambda: machine.now)
    assert (done.rounds, done.decided) == (6, False)
    done = measure(launch, lambda _: {"a"}, Plan(most_rounds=8), clock=lambda: 0.0)
    assert (done.rounds, done.decided) == (8, False)


def test_what_is_decided_rests_and_may_come_back() -> None:
    log: list[str] = []
    launch = {name: (lambda name=name: Noted(name, log)) for name in "abc"}
    answers = iter([{"a", "b"}, {"c", "a"}, set()])
    done = measure(launch, lambda _: next(answers), Plan(blocks=2, round_s=0))
    assert (done.rounds, done.decided) == (10, True)
    here, away = [2, 2], [0, 0]
    for name, later in (("a", here + here), ("b", here + away), ("c", away + here)):
        blocks = [*here * 3, *later]
        assert [len(process) for process in done.records[name].samples] == blocks
        assert log.count(f"start {name}") == sum(map(bool, blocks))
    together = timing.ratio(done.records["b"].samples, done.records["c"].samples)
    assert together is not None and together.processes == 6, "only what ran side by side"


@pytest.mark.parametrize(("point", "samples"), [("start", [[]]), ("block", [[]])])
def test_what_fails_is_left_out_and_the_others_go_on(point: str, samples: object) -> None:
    log: list[str] = []
    launch = {"good": lambda: Noted("g", log), "bad": lambda: Noted("b", log, point)}
    done = measure(launch, lambda _: (), Plan(blocks=4, round_s=0))
    assert done.records["bad"].reason == f"{point} went wrong"
    assert done.records["bad"].samples == samples
    assert not done.records["good"].reason
    assert [len(process) for process in done.records["good"].samples] == [4] * 6
    assert log.count("start b") == 1


def test_nothing_is_left_to_measure() -> None:
    launch = {"bad": lambda: Noted("b", [], "start")}
    assert measure(launch, lambda _: {"bad"}, Plan()).rounds == 1


def test_runs_fill_a_block_and_all_rounds_have_all_blocks() -> None:
    done = simulate(
        0, {"a": 0.02, "b": 1e-6}, Plan(most_rounds=6, blocks=4, block_s=0.1, round_s=0)
    )
    for name, runs in (("a", range(3, 7)), ("b", range(MOST_RUNS, MOST_RUNS + 1))):
        for process in done.records[name].samples:
            assert [len(block) in runs for block in process] == [True] * 4


def test_short_programs_have_more_blocks() -> None:
    for seconds, blocks in ((0.1, 20), (0.001, 64), (5.0, 14)):
        done = simulate(0, {"a": seconds, "b": seconds}, Plan(most_rounds=6, round_s=8))
        for one, other in zip(*(done.records[name].samples for name in "ab"), strict=True):
            assert len(one) == len(other) and len(one) % 2 == 0
            assert blocks / 2 <= len(one) <= blocks


class SlowToStart(Program):
    def start(self) -> Started:
        self.machine.now += 5.0
        return super().start()


@pytest.mark.parametrize(("kind", "least", "most"), [(Program, 8, 16), (SlowToStart, 17, 40)])
def test_a_round_measures_for_as_long_as_it_takes_to_start(
    kind: type[Program], least: int, most: int
) -> None:
    machine = Machine(0)
    launch = dict.fromkeys("ab", lambda: kind(machine, 0.1))
    done = measure(launch, lambda _: (), Plan(round_s=0), clock=lambda: machine.now)
    for process in done.records["a"].samples:
        assert least <= len(process) <= most


@pytest.mark.parametrize("wrong", [{"rounds": 4}, {"rounds": 7}, {"blocks": 3}, {"blocks": 0}])
def test_a_plan_that_says_nothing_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(InputError, match="expected even numbers"):
        Plan(**wrong)  # type: ignore[arg-type]
