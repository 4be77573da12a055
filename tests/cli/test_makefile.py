"""The Makefile: what it prints, what it passes on, and what it leaves when something fails."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.cli.running import ROOT, below

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="there is no make here")

MAKEFILE = ROOT / "Makefile"
PRINT_ARGUMENTS = '#!/bin/sh\nprintf "%s\\n" "$@"\n'
TOO_OLD = '#!/bin/sh\n[ "$1" = --version ] && { echo "Python 3.9.1"; exit 0; }\nexit 1\n'
# Makes an environment, whose pip then fails.
PIP_FAILS = """#!/bin/sh
[ "$2" = venv ] || exit 0
mkdir -p .venv/bin
printf '#!/bin/sh\\necho no such package >&2\\nexit 1\\n' > .venv/bin/python
chmod +x .venv/bin/python
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with what the Makefile reads."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def make(*args: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    ours = ("MAKE", "MFLAGS", "MODEL", "TARGET", "WEIGHTS", "BATCH", "SIZE", "OUT", "PYTHON")
    ours = (*ours, "PRECISION", "CALIBRATION")
    env = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
    return subprocess.run(
        ["make", *args], cwd=cwd, env=env, capture_output=True, text=True, timeout=60, check=False
    )


def test_help_has_a_line_for_each_target(checkout: Path) -> None:
    done = make("help", cwd=checkout)
    told = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("  make ")]
    (declared,) = re.findall(r"^\.PHONY: (.*)$", MAKEFILE.read_text(), re.MULTILINE)
    assert told == declared.split()
    assert make(cwd=checkout).stdout == done.stdout


@pytest.fixture
def installed(checkout: Path) -> Path:
    """With an environment whose python prints its arguments."""
    script(checkout / ".venv/bin/python", PRINT_ARGUMENTS)
    (checkout / ".venv/.installed").touch()
    return checkout


def test_engine_passes_on_what_it_is_given(installed: Path) -> None:
    assert make("engine", cwd=installed).stdout.splitlines() == [
        *("-m", "flatfold", "compile", "--", "repvgg_a0")
    ]
    weights = """my "best"  run's $(touch x) `touch x`/w.pth; touch x"""
    done = make(
        *("engine", "MODEL=repvgg_b1", "TARGET=ort-cpu", "BATCH=2", "SIZE=64"),
        *("PRECISION=bf16", "CALIBRATION=some data.npz"),
        *("OUT=a b", "WEIGHTS=" + weights.replace("$", "$$")),  # make's own spelling of a dollar
        cwd=installed,
    )
    given = done.stdout.splitlines()
    assert given[:3] == ["-m", "flatfold", "compile"] and given[-2:] == ["--", "repvgg_b1"]
    assert dict(zip(given[3:-2:2], given[4:-2:2], strict=True)) == {
        "--target": "ort-cpu",
        "--weights": weights,
        "--batch": "2",
        "--size": "64",
        "--out": "a b",
        "--precision": "bf16",
        "--calibration": "some data.npz",
    }
    assert "x" not in below(installed)


def test_report_passes_on_several_models(installed: Path) -> None:
    start = ["-m", "flatfold", "compare", "--save"]
    given = make("report", cwd=installed).stdout.splitlines()
    assert given == [*start, "report.html", "--", "repvgg_a0"]
    models = "MODEL=repvgg_a0 *  mobileone_s0; $$(touch x) `touch x`"
    variables = ("TARGET=ort-cpu", "BATCH=2", "SIZE=64", "OUT=a b.md")
    given = make("report", models, *variables, cwd=installed).stdout.splitlines()
    assert given == [
        *(*start, "a b.md", "--target", "ort-cpu", "--batch", "2", "--size", "64", "--"),
        *("repvgg_a0", "*", "mobileone_s0;", "$(touch", "x)", "`touch", "x`"),
    ]
    assert "x" not in below(installed)


def test_a_changed_requirement_installs_again(installed: Path) -> None:
    later = (installed / ".venv/.installed").stat().st_mtime + 10
    for name in ("pyproject.toml", "constraints.txt"):
        os.utime(installed / ".venv/.installed", (later, later))
        assert "installing" not in make("-n", "engine", cwd=installed).stdout
        os.utime(installed / name, (later + 10, later + 10))
        assert "installing" in make("-n", "engine", cwd=installed).stdout
        os.utime(installed / name, (later - 10, later - 10))


def test_python_that_is_too_old(checkout: Path) -> None:
    python = script(checkout / "old python", TOO_OLD)
    done = make("venv", f"PYTHON={python}", cwd=checkout)
    assert done.returncode == 2
    assert "expected Python 3.10 or newer, found Python 3.9.1" in done.stderr
    assert "try: make PYTHON=" in done.stderr
    assert ".venv" not in below(checkout)


def test_failed_install_leaves_no_stamp(checkout: Path) -> None:
    python = script(checkout / "python", PIP_FAILS)
    done = make("engine", f"PYTHON={python}", cwd=checkout)
    assert done.returncode == 2
    assert "no such package" in done.stderr
    assert ".venv/bin/python" in below(checkout)
    assert ".venv/.installed" not in below(checkout)
    again = make("-n", "engine", f"PYTHON={python}", cwd=checkout)
    assert "installing" in again.stdout
