"""Nodes, convolutions and BatchNormalizations after flatfold and after other optimizers.

    make peers                  a network of each family, and the pretrained files; docs/peers.md
    make peers ALL=1            every network of the zoo
    make peers MATCH=repvgg     those with "repvgg" in their name or path; writes nothing

Each network is exported in its training form by both exporters of PyTorch, at fixed sizes and at
open ones. Each tool has a process of its own, with its defaults; "all" is onnxscript's optimizer,
then onnxsim, then onnxslim. flatfold is behind where another tool leaves fewer nodes or fewer
convolutions.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import onnx

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/peers.md"
TOOLS = ("flatfold", "onnxsim", "onnxslim", "onnxscript", "all")
SECONDS = 600  # for one tool on one file
COUNTED = ("Conv", "BatchNormalization")

Count = dict[str, int]  # of nodes, "nodes" for all of them


@dataclass(frozen=True)
class Row:
    """A file, and what each tool leaves of it; no counts where a tool failed."""

    name: str
    form: str
    counts: dict[str, Count]

    @property
    def behind(self) -> list[str]:
        """What another tool leaves fewer of, such as "2 nodes"."""
        ours = self.counts.get("flatfold", {})
        others = [self.counts[tool] for tool in TOOLS[1:] if self.counts.get(tool)]
        if not ours or not others:
            return [] if ours else ["no answer"]
        least = {kind: min(count[kind] for count in others) for kind in ("nodes", "Conv")}
        return [f"{ours[k] - n} {k}" for k, n in least.items() if ours[k] > n]


def main() -> int:
    parser = argparse.ArgumentParser(prog="peers", description=__doc__.partition("\n")[0])
    parser.add_argument("--match", default="", help="part of a name or path")
    parser.add_argument("--all", action="store_true", help="every network of the zoo")
    parser.add_argument("--folder", type=Path, default=ROOT / "build/pretrained")
    parser.add_argument("--tool", nargs=3, metavar=("NAME", "IN", "OUT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.tool:
        _optimized_by(*options.tool)
        return 0
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as temporary:
        for name, form, path in _files(options, Path(temporary)):
            rows.append(Row(name, form, _counts(path, Path(temporary))))
            print(name, form, *(rows[-1].behind or ["not behind"]), sep="  ", flush=True)
    if not options.match:
        PAGE.write_text(page(rows))
    return 0


def _files(options: argparse.Namespace, folder: Path) -> Iterator[tuple[str, str, Path]]:
    """Name, form and path of every file."""
    from flatfold.models import FAMILIES, ZOO
    from tests.pretrained.packages import pretrained

    smallest = {
        min(
            (name for name, spec in ZOO.items() if spec.family == family),
            key=lambda name: ZOO[name].parameters[0],
        )
        for family in FAMILIES
    }
    for name in ZOO:
        if options.match in name and (options.all or name in smallest):
            for form, path in _exported(name, ZOO[name].input_shape, folder):
                yield name, form, path
    for one in pretrained(options.folder, print):
        if options.match in str(one.path):
            yield one.package, one.path.name, one.path


def _exported(name: str, shape: Sequence[int], folder: Path) -> Iterator[tuple[str, Path]]:
    """The training form of a network by each exporter, at fixed and at open sizes."""
    import torch

    from flatfold import create_model

    torch.manual_seed(0)
    network, x = create_model(name).eval(), torch.randn(1, *shape)
    path = folder / "network.onnx"
    for dynamo in (False, True):
        for is_open in (False, True):
            form = f"{'dynamo' if dynamo else 'script'}, {'open' if is_open else 'fixed'}"
            axes = {0: "n", 2: "h", 3: "w"} if is_open else {}
            sizes = {axis: torch.export.Dim.DYNAMIC for axis in axes}
            how = {"dynamic_shapes": (sizes,)} if dynamo else {"dynamic_axes": {"x": axes}}
            try:
                torch.onnx.export(
                    network, (x,), path, dynamo=dynamo, input_names=["x"], verbose=False, **how
                )
            except Exception as why:  # of PyTorch, which cannot export each network at open sizes
                print(f"skipped {name}, {form}: {str(why).splitlines()[0][:80]}", flush=True)
                continue
            yield form, path


def _counts(path: Path, folder: Path) -> dict[str, Count]:
    """What is in the file, and what each tool leaves of it; nothing of a tool that failed."""
    counts = {"file": _count(path)}
    for tool in TOOLS:
        out = folder / "out.onnx"
        out.unlink(missing_ok=True)
        command = [sys.executable, "-m", "bench.peers", "--tool", tool, str(path), str(out)]
        try:
            subprocess.run(command, cwd=ROOT, capture_output=True, timeout=SECONDS)
        except subprocess.TimeoutExpired:
            continue
        if out.exists():
            counts[tool] = _count(out)
    return counts


def _count(path: Path) -> Count:
    found: Counter[str] = Counter()
    graphs = [onnx.load(path, load_external_data=False).graph]
    while graphs:
        graph = graphs.pop()
        found.update(node.op_type for node in graph.node if node.op_type != "Constant")
        graphs += [a.g for node in graph.node for a in node.attribute if a.HasField("g")]
    return {"nodes": found.total(), **{kind: found[kind] for kind in COUNTED}}


def _optimized_by(tool: str, path: str, out: str) -> None:
    """Write what a tool makes of a file."""
    model = onnx.load(path)
    for step in ("onnxscript", "onnxsim", "onnxslim") if tool == "all" else (tool,):
        model = OPTIMIZERS[step](model)
    onnx.save(model, out)


def with_flatfold(model: onnx.ModelProto) -> onnx.ModelProto:
    import flatfold

    return flatfold.optimize(model, verify="off").model


def with_onnxsim(model: onnx.ModelProto) -> onnx.ModelProto:
    import onnxsim

    return onnxsim.simplify(model)[0]


def with_onnxslim(model: onnx.ModelProto) -> onnx.ModelProto:
    import onnxslim

    return onnxslim.slim(model)


def with_onnxscript(model: onnx.ModelProto) -> onnx.ModelProto:
    import onnxscript.optimizer

    return onnxscript.optimizer.optimize(model)


OPTIMIZERS: dict[str, Callable[[onnx.ModelProto], onnx.ModelProto]] = {
    "flatfold": with_flatfold,
    "onnxsim": with_onnxsim,
    "onnxslim": with_onnxslim,
    "onnxscript": with_onnxscript,
}


def page(rows: list[Row]) -> str:
    """The page that `make peers` writes."""
    behind = [row for row in rows if row.behind]
    versions = ", ".join(f"{tool} {version(tool)}" for tool in TOOLS[1:-1])
    lines = [
        "# Beside other optimizers",
        "",
        "Nodes / convolutions / BatchNormalizations that each tool leaves, with its defaults. "
        "Nodes are those of the graph and of the bodies in it; Constants are not counted. "
        f'"all" is onnxscript, then onnxsim, then onnxslim ({versions}). '
        "`make peers` counts again and writes this page.",
        "",
        f"Of {len(rows)} files flatfold is behind some other tool on {len(behind)}:",
        "",
        *(f"- {row.name}, {row.form}: {', '.join(row.behind)} more" for row in behind),
        "",
        f"| name | form | file | {' | '.join(TOOLS)} |",
        "|---" * (3 + len(TOOLS)) + "|",
    ]
    for row in rows:
        cells = [_cell(row.counts.get(tool)) for tool in ("file", *TOOLS)]
        lines.append(f"| {row.name} | {row.form} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(count: Count | None) -> str:
    return "-" if count is None else " / ".join(str(n) for n in count.values())


if __name__ == "__main__":
    sys.exit(main())
