"""The process that `made_apart` starts: does one job, and says how it went.

python -m flatfold.system.child FOLDER
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import threading
from pathlib import Path

from flatfold.errors import FlatfoldError
from flatfold.system.isolated import ERROR, FOLDER, JOB, MODEL, SAID, facts_of


def main(place: Path) -> int:
    """Exit status 0 if the maker did its work, 1 if it raised one of our errors."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    job = json.loads((place / JOB).read_text(encoding="utf-8"))
    module, _, function = job["maker"].partition(":")
    make = getattr(importlib.import_module(module), function)
    try:
        make(place / MODEL, place / FOLDER, job["options"], say)
    except FlatfoldError as error:
        (place / ERROR).write_text(json.dumps(facts_of(error)), encoding="utf-8")
        return 1
    return 0


def say(line: str) -> None:
    """One line of progress."""
    print(SAID + " ".join(line.split()), flush=True)


def _end_with_parent() -> None:
    """Nobody waits for what is made here once the other end of stdin is closed."""
    os.read(sys.stdin.fileno(), 1)  # no buffer, whose lock would be held at exit
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
