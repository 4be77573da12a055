"""No false alarm: blocks that are rewritten correctly are never refuted, at any scale."""

from __future__ import annotations

import pytest

import flatfold
from flatfold.proof import verify_parts
from tests.proof.generated import IN_ONE, Blocks

FEW, MANY = 300, 20_000
MODELS_IN_A_TEST = 10


def assert_no_alarm(seed: int) -> None:
    """`optimize` proves each region; `verify` knows nothing of them and must agree."""
    done = flatfold.optimize(Blocks(seed).model())
    found = done.equivalence
    assert found.verdict == "certified"
    assert found.certified == found.regions
    assert found.regions >= 0.8 * IN_ONE  # a norm alone, or one convolution, has nothing to fold
    assert found.region_ratio <= 1.01
    again = verify_parts(done.original, done.graph, found)
    assert again.verdict == "bounded", again.reason
    assert again.regions >= 0.8 * IN_ONE


@pytest.mark.parametrize("seed", range(FEW // IN_ONE))
def test_generated_blocks_raise_no_alarm(seed: int) -> None:
    assert_no_alarm(seed)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, MANY // IN_ONE, MODELS_IN_A_TEST))
def test_twenty_thousand_blocks_raise_no_alarm(first: int) -> None:
    for seed in range(first, first + MODELS_IN_A_TEST):
        assert_no_alarm(1000 + seed)


def test_a_seed_gives_the_same_blocks() -> None:
    one, two = (Blocks(7).model(3).SerializeToString() for _ in range(2))
    assert one == two
