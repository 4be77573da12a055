"""Ten thousand damaged models: refused, or rewritten rightly; no crash, no hang."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.mutants.supervise import outcomes

FEW, MANY, AT_ONCE = 300, 10_000, 1_000


def check(first: int, last: int) -> None:
    """Every mutant is refused with a code, or passes with a proof; enough of them pass."""
    found = outcomes(first, last)
    assert sorted(found) == list(range(first, last))
    verdicts = ("identical", "certified", "bounded", "sampled", "unknown")
    allowed = ("refused ", *(f"passed {verdict}" for verdict in verdicts))
    bad = {seed: said for seed, said in found.items() if not said.startswith(allowed)}
    assert not bad
    kinds = Counter(said.partition(" ")[0] for said in found.values())
    assert kinds["passed"] > (last - first) // 20, "no change is left that can be proved"
    assert kinds["refused"] > (last - first) // 4
    assert Counter(found.values())["passed unknown"] < (last - first) // 100


def test_mutants() -> None:
    check(0, FEW)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(FEW, MANY, AT_ONCE))
def test_many_mutants(first: int) -> None:
    check(first, min(first + AT_ONCE, MANY))


@pytest.mark.slow
def test_a_worker_that_hangs_or_dies_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A supervisor that noticed nothing would prove nothing."""
    monkeypatch.setenv("FLATFOLD_MUTANT_THAT_HANGS", "1")
    monkeypatch.setenv("FLATFOLD_MUTANT_THAT_DIES", "3")
    monkeypatch.setattr("tests.mutants.supervise.SECONDS", 15.0)
    found = outcomes(1, 5)
    assert (found[1], found[3]) == ("hung", "died of signal 11")
    assert {found[2][:7], found[4][:7]} <= {"refused", "passed "}
