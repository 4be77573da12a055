"""The numbers on the pages of the families are those of the golden table."""

from __future__ import annotations

import re

import pytest

from tests.docs.markdown import PAGES, read
from tests.golden.rows import ROWS, parameters

ROW = re.compile(r"^\| `(\w+)` \|(.*)\|$", re.MULTILINE)
LARGE = re.compile(r"\d{1,3}(?:,\d{3})+")  # nothing but parameters has so many digits


@pytest.mark.parametrize("page", [page for page in PAGES if "families" in page])
def test_parameters_are_those_of_the_table(page: str) -> None:
    rows = [(name, rest) for name, rest in ROW.findall(read(page)) if name in ROWS]
    for name, rest in rows:
        numbers = [int(number.replace(",", "")) for number in LARGE.findall(rest)]
        assert tuple(numbers) in ((), parameters(ROWS[name])), name
