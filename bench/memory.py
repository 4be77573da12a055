"""Peak memory of a contender on a model file, in a separate process.

    python bench/memory.py "optimize" warm-up.onnx model.onnx

prints in bytes by how much the resident memory rose at its peak, over what the process held after
it had loaded every library and treated the small model `warm-up.onnx`. Everything counts from
opening the file to the finished ModelProto: the bytes read, the parsed weights, float64 copies,
the new weights, and the buffers of the libraries. "optimize" stops at the rewritten graph, of which
"flatfold" makes a ModelProto too: a copy of every weight.
"""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path
from typing import Any

from contenders import CONTENDERS

KIB = 1024


def optimized(path: Path) -> object:
    """The rewritten graph."""
    import flatfold

    return flatfold.optimize(path, verify="off")


MEASURED = {"optimize": optimized, **CONTENDERS}


def peaks(name: str, path: Path, warm_up: Path) -> dict[str, Any]:
    """One row: for each contender the peak as a multiple of the bytes of the file."""
    size = path.stat().st_size
    row: dict[str, Any] = {"name": name, "file [MB]": size / 1e6}
    for contender in MEASURED:
        row[f"{contender} / file"] = _rise_in_child(contender, warm_up, path) / size
    return row


def _rise_in_child(contender: str, warm_up: Path, path: Path) -> int:
    command = [sys.executable, __file__, contender, str(warm_up), str(path)]
    return int(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout.split()[-1])


def rise(contender: str, warm_up: Path, path: Path) -> int:
    """Bytes by which the peak of this process lies above what it holds now."""
    run = MEASURED[contender]
    run(warm_up)
    gc.collect()
    before = _status("VmRSS")
    run(path)
    return _status("VmHWM") - before


def _status(key: str) -> int:
    """Bytes that Linux counts for this program alone: ru_maxrss has its parent's peak in it."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * KIB for line in lines if line.startswith(key))


if __name__ == "__main__":
    print(rise(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])))
