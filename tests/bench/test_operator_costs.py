"""The scripts behind the cost model run, and leave out no figure of the profile."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

from flatfold.passes.cost.profiles import PROFILES, Profile

ROOT = Path(__file__).parents[2]
# bench/costs.py compares these, and the forms that the profile chooses between
FORMS = {"averages", "blocks", "elementwise", "hard_sigmoid", "offset"}
CHOICES = {"fills_inputs", "finds", "slow", "turned_norm"}
NAMES = {field.name for field in fields(Profile)} - {"name"} - FORMS - CHOICES


def printed(script: str, *options: str) -> str:
    paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        [sys.executable, str(ROOT / "bench" / script), *options],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def measured(figure: str) -> dict[str, Any]:
    options = ("--rounds", "3", "--class", figure, "--json")
    return dict(json.loads(printed("operator_costs.py", *options)))


def test_every_figure_of_the_profile_is_measured():
    usage = printed("operator_costs.py", "--help")
    listed = usage.partition("{")[2].partition("}")[0]
    assert {name.strip() for name in listed.split(",")} == NAMES


def test_what_is_measured_stands_beside_the_figure_of_the_profile():
    found = measured("bandwidth")
    said, here = found["figures"]["bandwidth"]
    assert said == PROFILES["ort-cpu"].bandwidth
    assert here > 0
    assert {case["kind"] for case in found["cases"]} == {"Mul", "Add"}
    assert all(case["least"] > 0 for case in found["cases"])


def test_the_table_names_the_cases_and_the_profile():
    table = printed("operator_costs.py", "--rounds", "1", "--class", "product")
    assert "MatMul on 512x14x14" in table
    assert "GMAC/s" in table and "Profile ort-cpu" in table
