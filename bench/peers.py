"""Nodes, convolutions and BatchNormalizations after flatfold and after other optimizers.

    make peers                  a network of each family, timm's and the pretrained files;
                                docs/peers.md
    make peers ALL=1            every network of the zoo
    make peers MATCH=repvgg     those with "repvgg" in their name or path; writes nothing
    make peers FORM=script      only what the older exporter writes; writes nothing
    make peers KEPT=1           nothing new: the page of what was counted before

Each network is exported in its training form by both exporters of PyTorch, at fixed sizes and at
open ones. Each tool has a process of its own, with its defaults; "all" is onnxscript's optimizer,
then onnxsim, then onnxslim, and "deployed" is timm's reparameterize_model, then onnxsim. Inputs
that have default values become constants, which the other tools do unasked. flatfold is behind
where another tool leaves fewer nodes, convolutions or BatchNormalizations. A Conv that is a scale
and a shift (one tap for each channel, as a Mul and an Add) is a node, and no convolution. A
convolution in place of a matrix product or an average pool of the file is not one more. It is
behind by choice where the remarks on its changes say that it would not be without those that write
more nodes to save time.

What was counted is kept below build/peers, and counted again where the tool is another one since.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx

from bench.networks import FORMS, PREFIX, SIZE, TIMM, why_no_timm

if TYPE_CHECKING:
    from flatfold.passes import Remark

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/peers.md"
SAVED = ROOT / "build/peers"
TOOLS = ("flatfold", "onnxsim", "onnxslim", "onnxscript", "all", "deployed")
STEPS = {"all": ("onnxscript", "onnxsim", "onnxslim"), "deployed": ("onnxsim",)}
SECONDS = 600  # for one tool on one file
COUNTED = ("Conv", "BatchNormalization")  # and all nodes
LAYERS = ("AveragePool", "Conv", "ConvTranspose", "Gemm", "MatMul")
SCALE = "a scale and a shift"  # what a Conv with one tap for each channel is counted as
CHOSEN = "flatfold.chosen"  # in a file: more nodes by changes that save time, and percent of it

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
        if not self.counts.get("flatfold"):
            return ["no answer"]
        return [f"{more} {kind}" for kind, more in self._more.items()]

    @property
    def choice(self) -> str:
        """Which changes are why flatfold is behind, by their remarks; empty where they are not."""
        ours = self.counts.get("flatfold", {})
        nodes, percent = ours.get("chosen", 0), ours.get("percent", 0)
        norms = self._more.get("BatchNormalization", 0)
        if not self._more or norms or max(self._more.values()) > nodes:
            return ""
        return f"{nodes} more nodes by changes that leave {percent} % of the time by estimate"

    @property
    def _more(self) -> dict[str, int]:
        """By how many of each kind another tool leaves fewer."""
        ours = self.counts.get("flatfold", {})
        others = [self.counts[tool] for tool in TOOLS[1:] if self.counts.get(tool)]
        if not ours or not others:
            return {}
        kinds = ("nodes", *COUNTED)
        more = {kind: ours[kind] - min(count[kind] for count in others) for kind in kinds}
        more["Conv"] -= max(0, _other_layers(self.counts["file"]) - _other_layers(ours))
        return {kind: number for kind, number in more.items() if number > 0}


def _other_layers(count: Count) -> int:
    """Matrix products, average pools and transposed convolutions."""
    return count["layers"] - count["Conv"]


@dataclass(frozen=True)
class Graph:
    """A file to count, `path`, or a network that is exported to it; `form` says how."""

    name: str
    form: str
    path: Path | None = None

    def file(self, folder: Path, deployed: bool = False) -> Path | None:
        """The file, exported below `folder` if it is not there; None where that is not possible."""
        if self.path is not None:
            return None if deployed else self.path
        path = folder / ("deployed.onnx" if deployed else "network.onnx")
        if not path.exists():
            more = ["--deployed"] if deployed else []
            _run("bench.networks", self.name, self.form, str(path), *more)
        return path if path.exists() else None


def main() -> int:
    parser = argparse.ArgumentParser(prog="peers", description=__doc__.partition("\n")[0])
    parser.add_argument("--match", default="", help="part of a name or path")
    parser.add_argument("--form", default="", help="part of the name of a form, such as script")
    parser.add_argument("--kept", action="store_true", help="count nothing, write what was counted")
    parser.add_argument("--all", action="store_true", help="every network of the zoo")
    parser.add_argument("--folder", type=Path, default=ROOT / "build/pretrained")
    parser.add_argument("--tool", nargs=3, metavar=("NAME", "IN", "OUT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.tool:
        _optimized_by(*options.tool)
        return 0
    rows: list[Row] = []
    every, folder = options.all or options.kept, options.folder
    graphs = list(graphs_to_count(options.match, folder, options.form, every, new=not options.kept))
    versions = _versions()
    for number, graph in enumerate(graphs, 1):
        kept = _kept(graph, versions) if options.kept else _counts(graph, versions)
        row = Row(graph.name, graph.form, kept)
        if "file" in row.counts:
            rows.append(row)
        elif options.kept:
            continue
        said = row.behind or ["not behind"]
        said = [*said, row.choice] if "file" in row.counts else ["not exported"]
        print(f"{number}/{len(graphs)}", row.name, row.form, *said, sep="  ", flush=True)
    if not options.match and not options.form:
        PAGE.write_text(page(rows))
    return 0


def graphs_to_count(
    match: str,
    folder: Path,
    form: str = "",
    every: bool = False,
    timm: bool = True,
    new: bool = True,
) -> Iterator[Graph]:
    """The networks and files with `match` in their names, and `form` in how they were exported.

    One network of each family of the zoo, or `every` one; those of `timm`, whose packages are
    fetched if something `new` is to be exported; the files in `folder`.
    """
    from flatfold.models import FAMILIES, ZOO
    from tests.pretrained.packages import pretrained

    smallest = {
        min(
            (name for name, spec in ZOO.items() if spec.family == family),
            key=lambda name: ZOO[name].parameters[0],
        )
        for family in FAMILIES
    }
    names = [name for name in ZOO if every or name in smallest]
    of_timm = [PREFIX + name for name in TIMM if timm and match in PREFIX + name]
    why = why_no_timm() if of_timm and new else ""
    if why:
        print(f"skipped {len(of_timm)} networks of timm: {why}", flush=True)
    for name in names + ([] if why else of_timm):
        for each in FORMS:
            if match in name and form in each:
                yield Graph(name, each)
    for one in pretrained(folder, print):
        if match in str(one.path) and form in one.path.name:
            yield Graph(one.package, one.path.name, one.path)


def _versions() -> dict[str, str]:
    """What each count depends on, by tool."""
    code = (path for folder in ("flatfold", "frontend", "passes") for path in _code(ROOT / folder))
    exported = f"torch {version('torch')}, {_digest([ROOT / 'bench/networks.py'])}"
    each = {tool: f"{tool} {version(tool)}" for tool in STEPS["all"]}
    together = {tool: ", ".join(each[step] for step in steps) for tool, steps in STEPS.items()}
    made = {"file": exported, "flatfold": _digest(code), **each, **together}
    return {tool: f"{by}; {' '.join((*COUNTED, *LAYERS, SCALE))}" for tool, by in made.items()}


def _code(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))


def _digest(paths: Iterable[Path]) -> str:
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()[:12]


def _kept(graph: Graph, versions: dict[str, str]) -> dict[str, Count]:
    """What was counted before with tools of these versions."""
    return {
        tool: count
        for tool, (counted_with, count) in _known(graph).items()
        if count is not None and counted_with == versions[tool]
    }


def _saved(graph: Graph) -> Path:
    return SAVED / f"{graph.name}, {graph.form}.json".replace("/", "-")


def _known(graph: Graph) -> dict[str, Any]:
    """By tool, its version and what it left, as counted before."""
    saved = _saved(graph)
    return json.loads(saved.read_text()) if saved.exists() else {}


def _counts(graph: Graph, versions: dict[str, str]) -> dict[str, Count]:
    """What is in the file, and what each tool leaves of it; nothing of a tool that failed."""
    saved, known = _saved(graph), _known(graph)
    if graph.path is None and known.get("file", [""])[0] != versions["file"]:
        known = {}
    with tempfile.TemporaryDirectory() as folder:
        for tool in ("file", *TOOLS):
            if tool not in known or known[tool][0] != versions[tool]:
                known[tool] = (versions[tool], _left_by(tool, graph, Path(folder)))
                saved.parent.mkdir(parents=True, exist_ok=True)
                saved.write_text(json.dumps(known))
            if tool == "file" and known[tool][1] is None:
                return {}
    return {tool: count for tool, (_, count) in known.items() if count is not None}


def _left_by(tool: str, graph: Graph, folder: Path) -> Count | None:
    """What a tool leaves of the file; None if it fails."""
    path = graph.file(folder, deployed=tool == "deployed")
    if path is None or tool == "file":
        return None if path is None else _count(path)
    out = folder / "out.onnx"
    out.unlink(missing_ok=True)
    _run("bench.peers", "--tool", tool, str(path), str(out))
    return _count(out) if out.exists() else None


def _run(module: str, *arguments: str) -> None:
    """Run a module in a process of its own, which may fail."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        command = [sys.executable, "-m", module, *arguments]
        subprocess.run(command, cwd=ROOT, capture_output=True, timeout=SECONDS)


def _count(path: Path) -> Count:
    found: Counter[str] = Counter()
    model = onnx.load(path, load_external_data=False)
    graphs = [model.graph]
    chosen = {prop.key: prop.value for prop in model.metadata_props}.get(CHOSEN, "0 0").split()
    shapes: dict[str, Sequence[int]] = {}
    while graphs:
        graph = graphs.pop()
        shapes.update({tensor.name: tensor.dims for tensor in graph.initializer})
        found.update(_counted_as(node, shapes) for node in graph.node)
        graphs += [a.g for node in graph.node for a in node.attribute if a.HasField("g")]
    del found["Constant"]
    layers = sum(found[kind] for kind in LAYERS)
    return {
        "nodes": found.total(),
        **{kind: found[kind] for kind in COUNTED},
        "layers": layers,
        "chosen": int(chosen[0]),
        "percent": int(chosen[1]),
    }


def _counted_as(node: onnx.NodeProto, shapes: Mapping[str, Sequence[int]]) -> str:
    """The operator; `SCALE` for a Conv with one tap for each channel."""
    if node.op_type != "Conv":
        return node.op_type
    filters, *kernel = shapes.get(node.input[1], (0, 0))
    group = next((a.i for a in node.attribute if a.name == "group"), 1)
    return SCALE if group == filters and set(kernel) == {1} else node.op_type


def _optimized_by(tool: str, path: str, out: str) -> None:
    """Write what a tool makes of a file."""
    onnx.save(optimized(tool, onnx.load(path)), out)


def optimized(tool: str, model: onnx.ModelProto) -> onnx.ModelProto:
    """What a tool, or several one behind the other, makes of a model. Raises what they raise."""
    for step in STEPS.get(tool, (tool,)):
        model = OPTIMIZERS[step](model)
    return model


def with_flatfold(model: onnx.ModelProto) -> onnx.ModelProto:
    import flatfold

    done = flatfold.optimize(model, verify="off", constant_defaults=True)
    onnx.helper.set_model_props(done.model, {CHOSEN: "{} {}".format(*chosen(done.remarks))})
    return done.model


def chosen(remarks: Sequence[Remark]) -> tuple[int, int]:
    """By how many nodes changes that save time make a graph larger, and percent of the time left.

    Equal ones count once, as each of those that are made together has the costs of all.
    """
    costs = {(one.rewrite, one.before, one.after) for one in remarks if one.applied}
    larger = [(b, a) for _, b, a in costs if a.nodes > b.nodes and a.seconds < b.seconds]
    before, after = (sum(pair[side].seconds for pair in larger) for side in (0, 1))
    nodes = sum(a.nodes - b.nodes for b, a in larger)
    return nodes, round(100 * after / before) if larger else 0


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
    behind = [row for row in rows if row.behind and not row.choice]
    by_choice = [row for row in rows if row.choice]
    versions = ", ".join(f"{tool} {version(tool)}" for tool in STEPS["all"])
    lines = [
        "# Beside other optimizers",
        "",
        "Nodes / convolutions / BatchNormalizations that each tool leaves, with its defaults; but "
        "flatfold is told to take inputs that have default values as constants "
        "(`--constant-defaults`), which the others do unasked. "
        "Nodes are those of the graph and of the bodies in it; Constants are not counted. "
        f'"all" is onnxscript, then onnxsim, then onnxslim ({versions}), and "deployed" is timm\'s '
        "reparameterize_model, then onnxsim. Networks of timm are exported for pictures of "
        f"{SIZE} x {SIZE} pixels. "
        "A Conv with one tap for each channel, a scale and a shift, counts as a node only, "
        "and a convolution in place of a matrix product or an average pool as no more. "
        "`make peers` counts again and writes this page.",
        "",
        f"Of {len(rows)} files flatfold is behind some other tool on {len(behind)}:",
        "",
        *(f"- {row.name}, {row.form}: {', '.join(row.behind)} more" for row in behind),
        "",
        f"On {len(by_choice)} more it is by choice: changes that save time write more nodes, and "
        "without them, by their remarks, it would not be.",
        "",
        *(
            f"- {row.name}, {row.form}: {', '.join(row.behind)} more; {row.choice}"
            for row in by_choice
        ),
        "",
        f"| name | form | file | {' | '.join(TOOLS)} |",
        "|---" * (3 + len(TOOLS)) + "|",
    ]
    for row in rows:
        cells = [_cell(row.counts.get(tool)) for tool in ("file", *TOOLS)]
        lines.append(f"| {row.name} | {row.form} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(count: Count | None) -> str:
    return "-" if count is None else " / ".join(str(count[k]) for k in ("nodes", *COUNTED))


if __name__ == "__main__":
    sys.exit(main())
