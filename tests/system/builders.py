"""Builders for the tests of `build_in_subprocess`: one that works, and others that fail."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flatfold.errors import InputError
from flatfold.system.progress import Progress


def copies(model: Path, folder: Path, options: Mapping[str, Any], progress: Progress) -> None:
    progress("copying")
    print("the SDK prints this")
    (folder / "copy").write_bytes(model.read_bytes())
    (folder / "options").write_text(str(dict(options)))


def refuses(model: Path, folder: Path, options: Mapping[str, Any], progress: Progress) -> None:
    raise InputError("expected a cat, found a dog", where="node 3", hint="feed a cat")


def fails(model: Path, folder: Path, options: Mapping[str, Any], progress: Progress) -> None:
    raise RuntimeError("the SDK has a bug")


def crashes(model: Path, folder: Path, options: Mapping[str, Any], progress: Progress) -> None:
    print("about to crash", flush=True)
    os.kill(os.getpid(), signal.SIGSEGV)


def hangs(model: Path, folder: Path, options: Mapping[str, Any], progress: Progress) -> None:
    """Starts a child process and writes both process numbers to `options["pids"]`."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    Path(options["pids"]).write_text(f"{os.getpid()} {child.pid}")
    progress("hanging")
    time.sleep(600)
