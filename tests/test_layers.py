"""The shape of the house: who imports whom, where the folders are, how long functions get."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("frontend", "passes", "backends", "models")
SOURCES = (*FOLDERS, "flatfold")
LONGEST_BODY = 40

LINT_IMPORTS = (
    "from importlinter.cli import lint_imports_command as main; main(prog_name='lint-imports')"
)


def test_imports_follow_the_layers() -> None:
    """The contracts are in pyproject.toml."""
    command = [sys.executable, "-c", LINT_IMPORTS, "--no-cache", "--no-logo"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("name", FOLDERS)
def test_folder_is_linked_into_the_package(name: str) -> None:
    link = ROOT / "flatfold" / name
    assert link.is_symlink(), f"{link} is no link; check out again with git's core.symlinks on"
    assert link.readlink() == Path("..") / name
    assert link.resolve() == ROOT / name
    assert (link / "__init__.py").is_file()


def test_no_function_is_too_long() -> None:
    """Docstring and parameters left out: twelve options a line each are easy to read."""
    found = [
        f"{name(path)}:{function.lineno} {function.name}: {length} lines"
        for path in python_files()
        for function, length in functions(path)
        if length > LONGEST_BODY
    ]
    assert not found, report(f"function bodies of more than {LONGEST_BODY} lines", found)


def test_length_counts_a_body_without_its_docstring(tmp_path: Path) -> None:
    path = tmp_path / "example.py"
    path.write_text('def f(\n    a,\n):\n    """One.\n\n    Two.\n    """\n    a()\n    a()\n')
    assert [length for _, length in functions(path)] == [2]


def python_files(*more: str) -> Iterator[Path]:
    """Every source file once: the links inside flatfold/ are not followed."""
    for folder in (*SOURCES, *more):
        for path in sorted((ROOT / folder).rglob("*.py")):
            if not any(parent.is_symlink() for parent in path.parents if parent != ROOT):
                yield path


def functions(path: Path) -> Iterator[tuple[ast.FunctionDef | ast.AsyncFunctionDef, int]]:
    """Each function of a file with the length of its body."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body if ast.get_docstring(node) is None else node.body[1:]
            first = body[0].lineno if body else node.body[0].lineno
            yield node, (node.end_lineno or first) - first + 1


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def report(title: str, found: list[str]) -> str:
    return "\n  ".join((f"{title}:", *found))
