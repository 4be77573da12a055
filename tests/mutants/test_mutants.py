"""Twenty thousand mutants are refused or rewritten correctly; none crashes or hangs."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.supervise import outcomes

WORKER = "tests.mutants.worker"
FEW, MANY, AT_ONCE = 200, 20_000, 1_000


def check(first: int, last: int) -> None:
    """Every mutant is refused with a code, or passes with a proof; enough of them pass."""
    by_seed = outcomes(first, last, WORKER)
    assert sorted(by_seed) == list(range(first, last))
    verdicts = ("identical", "certified", "bounded", "sampled", "unknown")
    allowed = ("refused ", *(f"passed {verdict}" for verdict in verdicts))
    bad = {seed: outcome for seed, outcome in by_seed.items() if not outcome.startswith(allowed)}
    assert not bad
    kinds = Counter(outcome.partition(" ")[0] for outcome in by_seed.values())
    assert kinds["passed"] > (last - first) // 20, "too few mutants are rewritten and proved"
    assert kinds["refused"] > (last - first) // 4
    assert Counter(by_seed.values())["passed unknown"] < (last - first) // 100


# What these are met something once that crashed, hung or was called wrong.
FOUND = (
    *(235, 1715, 2302, 2395, 2546, 4126, 6047, 6779, 7863, 8406, 10238, 10573, 10663, 10828, 10987),
    *(11383, 11417, 11624, 12275, 12607, 4336, 5568, 14320, 16332, 16607, 17171, 17348, 17857),
    *(18680, 9359, 14421),
)


def test_mutants() -> None:
    check(0, FEW)


@pytest.mark.slow
def test_mutants_that_were_answered_wrongly() -> None:
    by_seed = {seed: outcomes(seed, seed + 1, WORKER)[seed] for seed in FOUND}
    assert not {s: o for s, o in by_seed.items() if not o.startswith(("refused ", "passed "))}


@pytest.mark.slow
@pytest.mark.parametrize("first", range(FEW, MANY, AT_ONCE))
def test_many_mutants(first: int) -> None:
    check(first, min(first + AT_ONCE, MANY))


@pytest.mark.slow
def test_a_worker_that_hangs_or_dies_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the other tests would pass whatever happens."""
    monkeypatch.setenv("FLATFOLD_MUTANT_THAT_HANGS", "1")
    monkeypatch.setenv("FLATFOLD_MUTANT_THAT_DIES", "3")
    monkeypatch.setattr("tests.supervise.SECONDS", 15.0)
    by_seed = outcomes(1, 5, WORKER)
    assert (by_seed[1], by_seed[3]) == ("hung", "died of signal 11")
    assert {by_seed[2][:7], by_seed[4][:7]} <= {"refused", "passed "}
