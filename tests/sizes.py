"""Lines of each package and each file, and the change since a commit: python -m tests.sizes [BASE].

BASE is `main` by default. Nothing fails here: a module is split when it holds two things, not when
it is long, but a package that grows by itself should be seen.
"""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parent.parent
SOURCES = ("flatfold", "frontend", "passes", "backends", "models", "tests")


def main() -> int:
    base = sys.argv[1] if len(sys.argv) > 1 else "main"
    lines, changes = line_counts(), line_changes(base)
    packages: dict[str, list[str]] = {}
    for path in sorted({*lines, *changes}):
        packages.setdefault(str(Path(path).parent), []).append(path)
    for package, paths in sorted(packages.items()):
        files = sum(path in lines for path in paths)
        total, change = (sum(counts[path] for path in paths) for counts in (lines, changes))
        print(row(f"{package}/  ({files} files)", total, change))
        for path in sorted(paths, key=lambda path: -lines[path]):
            print(row(f"  {Path(path).name}", lines[path], changes[path]))
    for source in SOURCES:
        under = [path for path in {*lines, *changes} if path.startswith(f"{source}/")]
        total, change = (sum(counts[path] for path in under) for counts in (lines, changes))
        print(row(f"all of {source}/", total, change))
    return 0


def row(name: str, lines: int, change: int) -> str:
    return f"{name:48}{lines:8,}{f'{change:+,}' if change else '':>9}".rstrip()


def line_counts() -> Counter[str]:
    """Path -> lines, of the Python files that git tracks or does not ignore."""
    listed = git("ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns())
    here = [path for path in listed if (ROOT / path).is_file()]
    return Counter({path: len((ROOT / path).read_bytes().splitlines()) for path in here})


def line_changes(base: str) -> Counter[str]:
    """Path -> lines more or fewer than where `base` was left; a moved file counts twice."""
    changes: Counter[str] = Counter()
    for line in git("diff", "--merge-base", "--numstat", "--no-renames", base, "--", *patterns()):
        added, removed, path = line.split("\t")
        changes[path] = int(added) - int(removed)
    new = git("ls-files", "--others", "--exclude-standard", "--", *patterns())
    changes.update({path: len((ROOT / path).read_bytes().splitlines()) for path in new})
    return changes


def patterns() -> list[str]:
    return [f":(glob){source}/**/*.py" for source in SOURCES]


def git(*arguments: str) -> list[str]:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"error: git {arguments[0]}: {done.stderr.strip()}")
    return done.stdout.splitlines()


if __name__ == "__main__":
    sys.exit(main())
