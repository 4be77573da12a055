"""What a worker process runs: one candidate on one target, read from a file."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

MEMORY = "memory"  # the target that copies arrays, to measure how fast memory is


@dataclass(frozen=True)
class Job:
    """One candidate on one target.

    `affinity` are the cores that the process may use, all of them where it is empty. `feeds` is the
    file with the inputs. For a target of `flatfold.compile`, `model` is an ONNX file, `options` are
    those of the target, and `saved` is a folder in which the engine is kept where building it takes
    long. For target "torch", `model` is a module stored by `frontend.pytorch.module`, run with
    torch.compile if `compiled`, with inputs and outputs of these names, in `precision`.
    """

    variant: str
    target: str
    threads: int
    affinity: tuple[int, ...] = ()
    feeds: str = ""
    model: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    saved: str = ""
    compiled: bool = False
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    precision: str = ""
