"""The real command in its own process, and small models for it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, "-m", "flatfold")

BLOCK = """<ir_version: 10, opset_import: ["" : 20]>
block (float[N, 4, S, S] image) => (float[N, 4, S, S] y) {
  wide = Conv <pads = [1, 1, 1, 1]> (image, w3)
  narrow = Conv (image, w1)
  both = Add (wide, narrow)
  y = Relu (both)
}"""

# The first sum has to stay, because one of its terms is an output too.
TWINS = """<ir_version: 10, opset_import: ["" : 20]>
twins (float[1, 4, 9, 9] image) => (float[1, 4, 9, 9] y, float[1, 4, 9, 9] seen) {
  seen = Conv <pads = [1, 1, 1, 1]> (image, w3)
  narrow = Conv (image, w1)
  both = Add (seen, narrow)
  half = Relu (both)
  wide = Conv <pads = [1, 1, 1, 1]> (half, w3)
  slim = Conv (half, w1)
  sum = Add (wide, slim)
  y = Relu (sum)
}"""

PLAIN = """<ir_version: 10, opset_import: ["" : 20]>
plain (float[1, 4, 9, 9] image) => (float[1, 4, 9, 9] y) { y = Relu (image) }"""

# A module of three such blocks, with a BatchNorm each, that prints when it is imported.
THREE_BLOCKS = """
from collections import OrderedDict
from torch import nn

print("three blocks for you")

class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.wide = nn.Conv2d(2, 2, 3, padding=1)
        self.narrow = nn.Conv2d(2, 2, 1)
        self.norm = nn.BatchNorm2d(2)

    def forward(self, x):
        return self.norm(self.wide(x) + self.narrow(x)).relu()

def net():
    return nn.Sequential(OrderedDict((name, Block()) for name in ("first", "second", "third")))
"""


def environment(**extra: str) -> dict[str, str]:
    """This process's, without what makes Rich write for a terminal; flatfold is importable."""
    kept = {k: v for k, v in os.environ.items() if k not in ("FORCE_COLOR", "COLUMNS")}
    return {**kept, "PYTHONPATH": str(ROOT), **extra}


def flatfold(*args: str | Path, cwd: Path, **extra: str) -> subprocess.CompletedProcess[str]:
    """Runs `flatfold ARGS` in `cwd` and waits for it."""
    return subprocess.run(
        [*COMMAND, *map(str, args)],
        cwd=cwd,
        env=environment(**extra),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def write_onnx(path: Path, text: str = BLOCK, size: int = 9, batch: str = "1") -> Path:
    """The model of `text`, weights drawn from a fixed seed, as a file."""
    rng = np.random.default_rng(0)
    shapes = {"w3": (4, 4, 3, 3), "w1": (4, 4, 1, 1)}
    weights = [
        ir.tensor(rng.standard_normal(shape).astype(np.float32), name=name)
        for name, shape in shapes.items()
        if name in text
    ]
    text = text.replace("N, 4, S, S", f"{batch}, 4, {size}, {size}")
    onnx.save(ir.to_proto(ir.from_onnx_text(text, initializers=weights)), path)
    return path


def below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
