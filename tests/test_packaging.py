"""What is in a wheel and in a source archive."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import flatfold

ROOT = Path(__file__).parent.parent
FOLDERS = ("frontend", "passes", "backends", "models")
COPIED = (*FOLDERS, "flatfold", "docs", "tests")

# Called as pip would, without a network and outside the working tree, which a build litters.
BUILD = (
    "import sys; from setuptools import build_meta; getattr(build_meta, sys.argv[1])(sys.argv[2])"
)


def build(kind: str, tree: Path, out: Path) -> Path:
    """The wheel or source archive of `tree`, written into `out`."""
    out.mkdir()
    command = [sys.executable, "-c", BUILD, f"build_{kind}", str(out)]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (built,) = out.iterdir()
    return built


def contents(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources, links kept as links."""
    place = tmp_path_factory.mktemp("packaging") / "tree"
    for folder in COPIED:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / folder, place / folder, symlinks=True, ignore=ignored)
    for path in ROOT.iterdir():
        if path.is_file() and not path.name.startswith("."):
            shutil.copy(path, place)
    return place


@pytest.fixture(scope="module")
def wheel(tree: Path) -> Path:
    return build("wheel", tree, tree.parent / "wheel")


@pytest.fixture(scope="module")
def sdist(tree: Path) -> Path:
    return build("sdist", tree, tree.parent / "sdist")


def test_wheel_holds_every_module(wheel: Path) -> None:
    sources = {path.relative_to(ROOT) for path in (ROOT / "flatfold").rglob("*.py")}
    linked = {
        Path("flatfold") / path.relative_to(ROOT)
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*.py")
    }
    missing = {path.as_posix() for path in sources | linked} - contents(wheel)
    assert not missing, f"not in the wheel: {sorted(missing)}"
    assert "flatfold/passes/stencil/stencil.py" in contents(wheel)
    assert "flatfold/py.typed" in contents(wheel)


def test_wheel_installs_nothing_but_flatfold(wheel: Path) -> None:
    """A top-level `models` or `tests` would shadow the user's own."""
    tops = {name.partition("/")[0] for name in contents(wheel)}
    assert tops == {"flatfold", f"flatfold-{flatfold.__version__}.dist-info"}


def test_wheel_has_the_command_and_the_licence(wheel: Path) -> None:
    info = f"flatfold-{flatfold.__version__}.dist-info"
    with zipfile.ZipFile(wheel) as archive:
        entry_points = archive.read(f"{info}/entry_points.txt").decode()
        licence = archive.read(f"{info}/licenses/LICENSE").decode()
    assert "flatfold = flatfold.__main__:main" in entry_points
    assert "Apache License" in licence


def test_source_archive_builds_the_same_wheel(sdist: Path, wheel: Path, tmp_path: Path) -> None:
    with tarfile.open(sdist) as archive:
        safe = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # not in 3.10.0
        archive.extractall(tmp_path, **safe)
    (unpacked,) = tmp_path.iterdir()
    tops = {path.name for path in unpacked.iterdir()}
    assert not tops & {"tests", "bench", *FOLDERS}
    assert {"LICENSE", "README.md", "docs"} <= tops
    again = build("wheel", unpacked, tmp_path / "wheel")
    assert contents(again) == contents(wheel)


def test_changelog_tells_of_this_version() -> None:
    assert f"## [{flatfold.__version__}]" in (ROOT / "CHANGELOG.md").read_text("utf-8")
