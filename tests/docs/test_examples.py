"""The examples of the documentation are run, not just shown."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.markdown import PAGES, ROOT, Block, blocks
from tests.test_layers import LINT_IMPORTS

FOLDERS = ("frontend", "passes", "backends", "models", "flatfold", "tests")
RUN = [
    page
    for page in PAGES
    if page != "CONTRIBUTING.md" and any(block.language == "python" for block in blocks(page))
]
PATHS = sorted({block.heading for block in blocks("CONTRIBUTING.md") if block.file})


@pytest.mark.parametrize("page", RUN)
def test_code_runs_and_prints_what_the_page_says(
    page: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Top to bottom, as a reader would type it, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    scope: dict[str, object] = {"__name__": "__main__"}
    examples = [block.text for block in blocks(page) if block.language == "python"]
    assert examples
    for text in examples:
        exec(compile(text, page, "exec"), scope)
        printed = capsys.readouterr().out.splitlines()
        for promised in re.findall(r"# prints (.+)", text):
            assert promised in printed, printed


def test_every_page_with_code_is_run() -> None:
    assert {"README.md", "docs/design.md", "docs/errors.md"} <= set(RUN)
    assert PATHS == [
        "Add a backend",
        "Add a local pass",
        "Add a model",
        "Add a pass",
        "Add an operator",
    ]


def test_what_a_newcomer_adds_works(tmp_path: Path) -> None:
    """In a copy of the tree: the files and edits of every example, their tests, and the linters."""
    for folder in FOLDERS:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / folder, tmp_path / folder, symlinks=True, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    steps = [block for block in blocks("CONTRIBUTING.md") if block.heading in PATHS]
    changed = [apply(block, tmp_path) for block in steps]
    sources = [file for file in changed if file.endswith(".py")]
    tests = [file for file in sources if file.startswith("tests/")]
    assert len(tests) == len(PATHS)
    run_in(tmp_path, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests)
    run_in(tmp_path, "-m", "ruff", "check", "--no-cache", *sources)
    run_in(tmp_path, "-m", "ruff", "format", "--check", "--no-cache", *sources)
    run_in(tmp_path, "-c", LINT_IMPORTS, "--no-cache", "--no-logo")


def apply(block: Block, tree: Path) -> str:
    """Write the file that a block is, or make the edits it shows; the path of what changed."""
    if block.language == "python":
        assert not (tree / block.file).exists(), f"{block.file} is there already"
        (tree / block.file).write_text(block.text, "utf-8")
        return block.file
    assert block.language == "diff", block
    first, _, rest = block.text.partition("\n")
    file = first.removeprefix("--- ")
    text = (tree / file).read_text("utf-8")
    for old, new in hunks(rest):
        assert text.count(old) == 1, f"{file} has {text.count(old)} of:\n{old}"
        text = text.replace(old, new)
    (tree / file).write_text(text, "utf-8")
    return file


def hunks(diff: str) -> Iterator[tuple[str, str]]:
    """The (old, new) text of each part of a diff."""
    for part in diff.split("@@\n"):
        lines = [(line[:1], line[1:] + "\n") for line in part.splitlines()]
        old = "".join(text for sign, text in lines if sign != "+")
        yield old, "".join(text for sign, text in lines if sign != "-")


def run_in(tree: Path, *arguments: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=tree,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{arguments}:\n{done.stdout}\n{done.stderr}"
