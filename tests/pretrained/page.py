"""docs/pretrained.md: what flatfold does with pretrained files."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

RIGHT = ("identical", "certified", "bounded", "sampled", "unknown")


@dataclass(frozen=True)
class Row:
    """One file: its size in bytes, and what the worker said of it."""

    package: str
    file: str
    size: int
    flatfold: dict[str, Any]
    comparison: dict[str, Any]
    onnxsim: dict[str, Any] = field(default_factory=dict)

    @property
    def fault(self) -> str:
        """What is wrong with the answer to a file that ONNX Runtime runs; empty if nothing."""
        if not self.comparison.get("runs", True):
            return ""
        verdict = self.flatfold["verdict"]
        if verdict not in RIGHT:
            return f"{verdict}: {self.flatfold.get('reason', '')}"
        return str(self.comparison.get("fault", ""))

    @property
    def ratio(self) -> float | None:
        """CPU time of flatfold over that of onnxsim, with all libraries loaded."""
        return self._ratio("cpu")

    @property
    def whole_ratio(self) -> float | None:
        """The same of the whole processes, from the start of Python."""
        return self._ratio("whole")

    def _ratio(self, measure: str) -> float | None:
        if measure not in self.onnxsim or self.flatfold["verdict"] not in RIGHT:
            return None
        return float(self.flatfold[measure] / max(self.onnxsim[measure], 1e-3))


def page(rows: Sequence[Row]) -> str:
    """The whole page."""
    ran = [row for row in rows if row.comparison.get("runs", True)]
    ratios = [row.ratio for row in rows if row.ratio is not None]
    whole = [row.whole_ratio for row in rows if row.whole_ratio is not None]
    right = sum(not row.fault for row in ran)
    two = sum(len(row.comparison.get("sizes", ())) == 2 for row in ran)
    lines = [
        "# Pretrained files",
        "",
        "Every .onnx file in the packages of `tests/pretrained/packages.txt`, through"
        " `flatfold.optimize` with its defaults. `make test-pretrained` runs them and writes this"
        " page.",
        "",
        f"Of {len(rows)} files, ONNX Runtime runs {len(ran)}. flatfold answers {right} of these:"
        f" not refused, not called different, and with the same outputs, {two} of them at two"
        " sizes (the others have one size). The sizes are found by trial, apart from flatfold.",
    ]
    if ratios:
        lines.append(
            f"Median of the CPU time over that of onnxsim: {statistics.median(whole):.1f}x of whole"
            f" processes, which load their libraries first, and {statistics.median(ratios):.1f}x"
            " with all libraries loaded. It includes the proof, which onnxsim does not make."
        )
    lines += [
        "",
        f"onnxruntime {version('onnxruntime')}, onnxsim {version('onnxsim')}. Nodes are those of"
        " the graph and of the bodies in it. CPU is in seconds, with"
        " all libraries loaded.",
        "",
        "| package | file | MB | nodes | after | by onnxsim | verdict | CPU | onnxsim | ratio |",
        "|---|---|---|---|---|---|---|---|---|---|",
        *map(_line, rows),
        "",
    ]
    faults = [f"- {row.package} {row.file}: {_one_line(row.fault)}" for row in rows if row.fault]
    return "\n".join([*lines, *(["Not right:", "", *faults, ""] if faults else [])])


def _line(row: Row) -> str:
    verdict = row.flatfold["verdict"]
    if not row.comparison.get("runs", True):
        verdict += " (ONNX Runtime does not run it)"
    elif row.fault:
        verdict = f"**{verdict if verdict not in RIGHT else 'other outputs'}**"
    cells = [
        row.package,
        row.file,
        f"{row.size / 1e6:.1f}",
        _or_dash(row.comparison.get("nodes")),
        _or_dash(row.flatfold.get("nodes")),
        _or_dash(row.onnxsim.get("nodes")),
        verdict,
        _seconds(row.flatfold.get("cpu")),
        _seconds(row.onnxsim.get("cpu")),
        "-" if row.ratio is None else f"{row.ratio:.1f}",
    ]
    return f"| {' | '.join(cells)} |"


def _or_dash(number: int | None) -> str:
    return "-" if number is None else str(number)


def _seconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.2f}"


def _one_line(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
