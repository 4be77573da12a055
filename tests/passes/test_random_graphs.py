"""No random graph may be rewritten wrongly. On failure the seed names the graph."""

from __future__ import annotations

import os

import pytest

from tests.nets import assert_same, assert_same_on_basis, assert_untouched, rewrite
from tests.passes.random_graphs import random_graph

FIRST = int(os.environ.get("FLATFOLD_FUZZ_SEED", "0"))
COUNT = int(os.environ.get("FLATFOLD_FUZZ_COUNT", "200"))


@pytest.mark.parametrize("block", range(10))
def test_random_graphs_keep_their_function(block):
    applied = 0
    for seed in range(FIRST + block * COUNT // 10, FIRST + (block + 1) * COUNT // 10):
        model, shape = random_graph(seed)
        try:
            done = rewrite(model)
            assert_same(done, shape, seed)
            assert_untouched(rewrite(done.after))
        except Exception as why:
            raise AssertionError(f"seed {seed}: {why}") from why
        applied += len(done.applied)
    assert applied > COUNT // 20, "the graphs drawn gave the rewrites nothing to do"


@pytest.mark.parametrize("block", range(4))
def test_linear_graphs_agree_on_a_basis_of_their_inputs(block):
    """Two affine functions that agree on 0 and on every impulse agree everywhere."""
    for seed in range(FIRST + block * 10, FIRST + (block + 1) * 10):
        model, shape = random_graph(seed, linear=True)
        assert_same_on_basis(rewrite(model), shape)
