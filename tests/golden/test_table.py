"""Every network of the zoo reaches the form in the golden table, and it is proven."""

from __future__ import annotations

import pytest

import flatfold
from flatfold.models import ZOO
from tests.golden.rows import QUICK, ROWS, SMALLEST, TABLE, every, parameters


def test_the_table_has_every_network_of_the_zoo():
    assert set(ROWS) == set(ZOO)
    assert {name: family for family, rows in TABLE.items() for name in rows} == {
        name: spec.family for name, spec in ZOO.items()
    }


def test_the_zoo_and_the_table_agree_on_parameters():
    assert {name: parameters(row) for name, row in ROWS.items()} == {
        name: spec.parameters for name, spec in ZOO.items()
    }


@pytest.mark.parametrize("family", [f for f, name in SMALLEST.items() if name not in QUICK])
def test_the_row_of_one_network_of_each_family_is_what_comes_out(family):
    """Its own tests compare every row of a family with the paper; here flatfold computes one.

    All of them are computed, and proven, by the tests below, which are slow but for one.
    """
    name = SMALLEST[family]
    row, (height, width) = ROWS[name], ROWS[name]["sizes"][0]
    done = flatfold.optimize(name, input_shape=(3, height, width), verify="off")
    assert done.before.operators == row["before"]
    assert done.after.operators == row["after"]
    assert [done.before.parameters, done.after.parameters] == row["parameters"]


@pytest.mark.parametrize("name", every())
def test_both_forms_for_any_batch(name):
    row = ROWS[name]
    height, width = row["sizes"][0]
    done = flatfold.optimize(name, input_shape=(3, height, width), dynamic_batch=True)
    assert done.before.operators == row["before"]
    assert done.after.operators == row["after"]
    assert [done.before.parameters, done.after.parameters] == row["parameters"]
    assert done.equivalence.verdict == "certified"
    batches = {label.split()[-1].partition("x")[0] for label in done.equivalence.inputs}
    assert batches == {"2", "1"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ROWS)
def test_another_size(name):
    height, width = ROWS[name]["sizes"][1]
    done = flatfold.optimize(name, input_shape=(3, height, width))
    assert done.equivalence.verdict == "certified"


@pytest.mark.slow
@pytest.mark.parametrize("name", ROWS)
def test_the_work_at_its_own_size(name):
    done = flatfold.optimize(name, verify="off")
    assert [round(count.macs / 1e9, 3) for count in (done.before, done.after)] == ROWS[name]["gmac"]
